//! Reading PEM files. Messages never quote the file: the library's errors repeat the faulty line, which is the whole key if
//! line breaks were lost.

use std::{ffi::OsStr, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use service::settings::describe_read_error;

/// Whether a text is a path, which may be shown: the file or its directory exists, it has the extension of a PEM file, or it is an
/// absolute path. None of this holds for a key in base64, even if that begins with a slash.
pub(crate) fn looks_like_path(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    let is_dir = |dir: &Path| dir.file_name().is_some() && dir.is_dir();
    path.exists()
        || ending.is_some_and(|ending| ["pem", "crt", "cer", "key"].contains(&ending))
        || path.parent().is_some_and(is_dir)
        || path.to_str().is_some_and(is_plausible_absolute_path)
}

/// The shortest key, of 32 bytes, has 43 characters in base64.
const MIN_KEY_BASE64_LEN: usize = 40;
/// On average one in 64 characters of a key is a slash, so long segments without one are suspicious.
const SUSPICIOUS_SEGMENT_LEN: usize = 16;

/// Whether a text is an absolute path without any part that could be a key: a long run of base64 in upper and lower case.
fn is_plausible_absolute_path(text: &str) -> bool {
    let is_unusual = |ch: char| ch.is_whitespace() || ch.is_control();
    let is_not_base64 = |ch: char| !ch.is_ascii_alphanumeric() && !"+/=".contains(ch);
    let is_key = |run: &str| {
        let is_long = run.len() >= MIN_KEY_BASE64_LEN
            || run.split('/').any(|name| name.len() >= SUSPICIOUS_SEGMENT_LEN);
        is_long && run.contains(char::is_uppercase) && run.contains(char::is_lowercase)
    };
    let is_absolute = text.starts_with('/') && !text.contains("-----") && !text.contains(is_unusual);
    is_absolute && !text.split(is_not_base64).any(is_key)
}

/// The certificates in a file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| describe_fault(&bytes, "certificate"))
}

/// The private keys in a file, at least one.
pub(crate) fn keys(path: &Path) -> Result<Vec<PrivateKeyDer<'static>>, String> {
    let bytes = read(path)?;
    let keys: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(&bytes).collect();
    keys.ok().filter(|keys| !keys.is_empty()).ok_or_else(|| describe_fault(&bytes, "private key"))
}

/// A PEM file's contents without the byte order mark that Windows editors write.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = std::fs::read(path).map_err(|error| describe_read_error(path, &error))?;
    if bytes.starts_with(UTF8_BOM) {
        bytes.drain(..UTF8_BOM.len());
    }
    Ok(bytes)
}

const UTF8_BOM: &[u8] = b"\xEF\xBB\xBF";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const LINE_ENDING_FIX: &str =
    "restore the line breaks: perl -pe 's/(-----[A-Z ]+-----)/\\n$1\\n/g' FILE | grep . > NEW";

/// Why a file does not contain what was expected.
fn describe_fault(bytes: &[u8], expected: &str) -> String {
    let text = String::from_utf8_lossy(bytes);
    let labels: Vec<_> = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once("-----")).collect();
    let has_label = |what: &str| labels.iter().any(|(label, _)| label.to_ascii_lowercase().ends_with(what));
    if labels.is_empty() {
        return format!("it is not a PEM file: {}", describe_non_pem(bytes));
    }
    if let Some(message) = describe_line_endings(&text) {
        return message;
    }
    if text.matches(END).count() < labels.len() {
        return "it is cut off: its END line is missing".to_owned();
    }
    if expected == "private key" && has_label("encrypted private key")
        || text.contains("Proc-Type: 4,ENCRYPTED")
    {
        return "the key is encrypted with a password; decrypt it: openssl pkey -in FILE -out NEW".to_owned();
    }
    if let Some((_, message)) = UNSUPPORTED_LABELS.iter().find(|(label, _)| has_label(label)) {
        return (*message).to_owned();
    }
    if !has_label(expected) {
        let holds = ["certificate", "private key", "public key"].into_iter().find(|what| has_label(what));
        return format!(
            "it contains a {} instead of a {expected}",
            holds.unwrap_or("section of another kind")
        );
    }
    format!("the {expected} in it is damaged: the text between its BEGIN and END lines cannot be decoded")
}

/// What is often mistaken for a certificate or key, by the end of its label.
const UNSUPPORTED_LABELS: [(&str, &str); 4] = [
    (
        "certificate request",
        "it contains a certificate request instead of a certificate: use the file that the authority returned for it",
    ),
    (
        "trusted certificate",
        "it contains a certificate in OpenSSL's own format; convert it: openssl x509 -in FILE -out NEW",
    ),
    ("pkcs7", "it is PKCS#7; convert it: openssl pkcs7 -print_certs -in FILE -out NEW"),
    (
        "openssh private key",
        "the key is in OpenSSH's own format; convert a copy of it: ssh-keygen -p -m PEM -f FILE",
    ),
];

/// The format of a file without a BEGIN line, judged by its first bytes.
fn describe_non_pem(bytes: &[u8]) -> &'static str {
    // DER: a sequence with its length, which begins with the version of a PKCS#12 file or key, or with a certificate's sequence.
    let inside = match bytes {
        [0x30, 0x82, _, _, inside @ ..] | [0x30, 0x81, _, inside @ ..] | [0x30, _, inside @ ..] => inside,
        _ => &[],
    };
    match (bytes, inside) {
        ([0xFF, 0xFE, ..] | [0xFE, 0xFF, ..], _) => {
            "it is UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"
        }
        (_, [0x02, 0x01, 0x03, ..]) => {
            "it is PKCS#12 (.p12, .pfx); convert it: openssl pkcs12 -in FILE -nodes -out NEW"
        }
        (_, [0x02, 0x01, 0 | 1, ..]) => {
            "it is a key in DER; convert it: openssl pkey -inform DER -in FILE -out NEW"
        }
        (_, [0x30, ..]) => {
            "it is a certificate in DER; convert it: openssl x509 -inform DER -in FILE -out NEW"
        }
        _ => "it has no BEGIN line",
    }
}

fn describe_line_endings(text: &str) -> Option<String> {
    let lines = || text.split(['\n', '\r']).map(str::trim);
    let is_whole_line = |line: &str| line.ends_with("-----") && line.matches("-----").count() == 2;
    if !lines().any(|line| (line.contains(BEGIN) || line.contains(END)) && !is_whole_line(line)) {
        return None;
    }
    if text.contains("\\n") {
        let message = "its line breaks are written as `\\n`; convert them: printf '%b' \"$(cat FILE)\" > NEW";
        return Some(message.to_owned());
    }
    let shape = if lines().filter(|line| !line.is_empty()).count() == 1 {
        "the whole file is one line"
    } else {
        "its BEGIN and END lines contain more than that"
    };
    Some(format!("its line breaks are missing: {shape}; {LINE_ENDING_FIX}"))
}

#[cfg(test)]
mod tests {
    use service::secret::redact;

    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn every_error_is_explained_without_quoting_the_file() {
        let file = temporary("pem").join("file.pem");
        let pair = rcgen::KeyPair::generate().unwrap();
        let valid = pair.serialize_pem();
        let middle = valid.lines().nth(1).unwrap().to_owned();
        let sec1 = valid.replace("PRIVATE KEY", "EC PRIVATE KEY");
        let one_line = |pem: &str| pem.replace('\n', "");
        for (name, content, expected) in [
            (
                "one line, PKCS#8",
                one_line(&valid),
                "the whole file is one line; restore the line breaks: perl",
            ),
            ("one line, EC", one_line(&sec1), "the whole file is one line"),
            ("one line with a line end", one_line(&valid) + "\n", "the whole file is one line"),
            ("spaces for line breaks", valid.trim().replace('\n', " "), "line breaks are missing"),
            ("some lost", valid.replacen("-----\n", "-----", 1), "line breaks are missing"),
            ("escaped", valid.replace('\n', "\\n"), "written as `\\n`"),
            ("cut off", valid.split("-----END").next().unwrap().to_owned(), "is cut off"),
            ("no base64", valid.replace(&middle, &format!("!{middle}")), "is damaged"),
            ("bare base64", middle.clone(), "it is not a PEM file"),
            ("empty", String::new(), "it is not a PEM file"),
            (
                "encrypted",
                valid.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
                "is encrypted with a password",
            ),
            (
                "encrypted in the old way",
                valid.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n"),
                "is encrypted",
            ),
            ("OpenSSH's", valid.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"), "ssh-keygen -p -m PEM"),
            ("a request", valid.replace("PRIVATE KEY", "CERTIFICATE REQUEST"), "instead of a certificate"),
            (
                "a certificate",
                valid.replace("PRIVATE KEY", "CERTIFICATE"),
                "contains a certificate instead of a private key",
            ),
        ] {
            std::fs::write(&file, content).unwrap();
            let message = keys(&file).unwrap_err();
            assert!(message.contains(expected), "{name}: {message}");
            assert!(!message.contains(&middle[..8]), "{name}: {message}");
            assert_eq!(redact(&message), message, "{name}: nothing in it looks like a secret");
        }
        for (content, expected) in [
            (one_line(&valid.replace("PRIVATE KEY", "CERTIFICATE")), "one line"),
            (valid.clone(), "contains a private key instead of a certificate"),
        ] {
            std::fs::write(&file, content).unwrap();
            let message = certificates(&file).unwrap_err();
            assert!(message.contains(expected) && !message.contains(&middle[..8]), "{message}");
        }
    }

    #[test]
    fn windows_files_and_other_sections_are_accepted() {
        let file = temporary("pem-windows").join("file.pem");
        let valid = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(&file, valid.replace('\n', "\r\n")).unwrap();
        assert!(keys(&file).is_ok(), "Windows line breaks are accepted");
        std::fs::write(&file, format!("\u{feff}{valid}")).unwrap();
        assert!(keys(&file).is_ok(), "a byte order mark is ignored");
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        std::fs::write(&file, format!("Bag Attributes\n{parameters}{valid}")).unwrap();
        assert_eq!(keys(&file).map(|keys| keys.len()), Ok(1), "other sections are ignored");
    }

    #[test]
    fn a_file_in_another_format_is_reported_with_the_command_that_converts_it() {
        let file = temporary("form").join("file");
        for (content, expected) in [
            (&b"\xff\xfe-\0-\0"[..], "iconv -f UTF-16"),
            (b"\x30\x82\x01\x00\x02\x01\x03\x30\x82", "openssl pkcs12 -in FILE -nodes"),
            (b"\x30\x81\x87\x02\x01\x00\x30\x13", "openssl pkey -inform DER"),
            (b"\x30\x77\x02\x01\x01\x04\x20", "openssl pkey -inform DER"),
            (b"\x30\x82\x01\x7f\x30\x82\x01\x25", "openssl x509 -inform DER"),
            (b"\x30", "it has no BEGIN line"),
        ] {
            std::fs::write(&file, content).unwrap();
            for message in [keys(&file).unwrap_err(), certificates(&file).unwrap_err()] {
                assert!(
                    message.starts_with("it is not a PEM file: ") && message.contains(expected),
                    "{content:?}: {message}"
                );
            }
        }
    }

    #[test]
    fn the_suggested_command_restores_the_line_breaks() {
        let dir = temporary("repair");
        let valid = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(dir.join("FILE"), valid.replace('\n', "")).unwrap();
        let message = keys(&dir.join("FILE")).unwrap_err();
        let command = message.split_once("restore the line breaks: ").unwrap().1;
        let mut shell = std::process::Command::new("sh");
        if shell.args(["-c", command]).current_dir(&dir).status().is_ok_and(|status| status.success()) {
            assert!(keys(&dir.join("NEW")).is_ok());
        }
    }
}
