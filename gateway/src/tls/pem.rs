//! Reading PEM files. What is wrong with one is told in words of our own and never quoted: the library's errors repeat the
//! line that they stumble over, which is all of a key whose line ends were lost.

use std::{ffi::OsStr, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Whether a text can be shown as the path of a PEM file: there is such a file, its name ends as theirs do, or the folder
/// that it would be in is there. Nothing of this holds of a key in base64, though that may have slashes.
pub(crate) fn looks_like_path(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    let is_folder = |folder: &Path| folder.file_name().is_some() && folder.is_dir();
    path.exists()
        || ending.is_some_and(|ending| ["pem", "crt", "cer", "key"].contains(&ending))
        || path.parent().is_some_and(is_folder)
}

/// The certificates in a file, at least one; or what is wrong with it.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| fault(&bytes, "certificate"))
}

/// The first private key in a file; or what is wrong with it.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| fault(&bytes, "private key"))
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// What gives lost line ends back.
const REPAIR: &str = "give them back: perl -pe 's/(-----[A-Z ]+-----)/\\n$1\\n/g' FILE | grep . > NEW";

/// Why no such thing was found in it.
fn fault(bytes: &[u8], wanted: &str) -> String {
    let text = String::from_utf8_lossy(bytes);
    let labels: Vec<_> = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once("-----")).collect();
    let is = |what: &str| labels.iter().any(|(label, _)| label.to_ascii_lowercase().ends_with(what));
    if labels.is_empty() {
        return "it is no PEM file: it has no BEGIN line; `openssl x509` and `openssl pkey` with `-inform DER -in FILE -out NEW` \
                make one of a DER file"
            .to_owned();
    }
    let lines = || text.split(['\n', '\r']).map(str::trim);
    let alone = |line: &str| line.ends_with("-----") && line.matches("-----").count() == 2;
    if lines().any(|line| (line.contains(BEGIN) || line.contains(END)) && !alone(line)) {
        if text.contains("\\n") {
            return "its line ends are written as `\\n`; make them real: printf '%b' \"$(cat FILE)\" > NEW"
                .to_owned();
        }
        let shape = if lines().filter(|line| !line.is_empty()).count() == 1 {
            "the whole file is one line"
        } else {
            "its BEGIN and END lines hold more than that"
        };
        return format!("its line ends are missing: {shape}; {REPAIR}");
    }
    if text.matches(END).count() < labels.len() {
        return "it is cut off: its END line is missing".to_owned();
    }
    if wanted == "private key" && is("encrypted private key") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return "the key is protected by a password; take it off: openssl pkey -in FILE -out NEW".to_owned();
    }
    if !is(wanted) {
        let holds = ["certificate", "private key", "public key"].into_iter().find(|what| is(what));
        return format!("it holds a {} and no {wanted}", holds.unwrap_or("section of another kind"));
    }
    format!("the {wanted} in it is damaged: what stands between its first and last line cannot be decoded")
}

#[cfg(test)]
mod tests {
    use shared::service::secret::redacted;

    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn every_fault_is_told_in_words_and_no_byte_of_the_file_is_quoted() {
        let file = temporary("pem").join("file.pem");
        let pair = rcgen::KeyPair::generate().unwrap();
        let sound = pair.serialize_pem();
        let middle = sound.lines().nth(1).unwrap().to_owned();
        let sec1 = sound.replace("PRIVATE KEY", "EC PRIVATE KEY");
        let one_line = |pem: &str| pem.replace('\n', "");
        for (name, content, words) in [
            ("one line, PKCS#8", one_line(&sound), "the whole file is one line; give them back: perl"),
            ("one line, EC", one_line(&sec1), "the whole file is one line"),
            ("one line with a line end", one_line(&sound) + "\n", "the whole file is one line"),
            ("spaces for line ends", sound.trim().replace('\n', " "), "line ends are missing"),
            ("some lost", sound.replacen("-----\n", "-----", 1), "line ends are missing"),
            ("escaped", sound.replace('\n', "\\n"), "written as `\\n`"),
            ("cut off", sound.split("-----END").next().unwrap().to_owned(), "is cut off"),
            ("no base64", sound.replace(&middle, &format!("!{middle}")), "is damaged"),
            ("bare base64", middle.clone(), "it is no PEM file"),
            ("empty", String::new(), "it is no PEM file"),
            ("encrypted", sound.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "protected by a password"),
            (
                "a certificate",
                sound.replace("PRIVATE KEY", "CERTIFICATE"),
                "holds a certificate and no private key",
            ),
        ] {
            std::fs::write(&file, content).unwrap();
            let told = key(&file).unwrap_err();
            assert!(told.contains(words), "{name}: {told}");
            assert!(!told.contains(&middle[..8]), "{name}: {told}");
            assert_eq!(redacted(&told), told, "{name}: nothing in it looks like a secret");
        }
        for (content, words) in [
            (one_line(&sound.replace("PRIVATE KEY", "CERTIFICATE")), "one line"),
            (sound.clone(), "holds a private key and no certificate"),
        ] {
            std::fs::write(&file, content).unwrap();
            let told = certificates(&file).unwrap_err();
            assert!(told.contains(words) && !told.contains(&middle[..8]), "{told}");
        }
        std::fs::write(&file, sound.replace('\n', "\r\n")).unwrap();
        assert!(key(&file).is_ok(), "line ends of Windows are line ends");
    }

    #[test]
    fn the_command_that_is_named_gives_the_line_ends_back() {
        let folder = temporary("repair");
        let sound = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(folder.join("FILE"), sound.replace('\n', "")).unwrap();
        let told = key(&folder.join("FILE")).unwrap_err();
        let command = told.split_once("give them back: ").unwrap().1;
        let mut shell = std::process::Command::new("sh");
        if shell.args(["-c", command]).current_dir(&folder).status().is_ok_and(|done| done.success()) {
            assert!(key(&folder.join("NEW")).is_ok());
        }
    }
}
