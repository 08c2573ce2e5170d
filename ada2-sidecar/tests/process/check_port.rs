//! `ada2-sidecar check-port` works when other things are broken.

use crate::running::binary;

/// `check-port` with a `systemctl` that prints this, or without one.
fn check_port(dir: &std::path::Path, flags: &[&str], systemctl: Option<&str>) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    let tool = dir.join("systemctl");
    let _ = std::fs::remove_file(&tool);
    if let Some(answer) = systemctl {
        let active = "is-active --quiet ada2-sidecar.socket";
        let script =
            format!("#!/bin/sh\n[ \"$*\" = '{SHOW}' ] && echo '{answer}' || [ \"$*\" = '{active}' ]\n");
        std::fs::write(&tool, script).expect("a writable directory");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755))
            .expect("a writable directory");
    }
    let mut command = binary(&[&["check-port"], flags].concat());
    let output = command.env("PATH", dir).output().expect("the sidecar can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("it prints UTF-8"))
}

const SHOW: &str = "show --value --property=Listen ada2-sidecar.socket";

#[test]
fn check_port_names_the_holder_whatever_else_is_wrong_with_the_configuration() {
    let dir = fakes::fresh_dir("check-port");
    let file = dir.join("broken.yaml");
    let path = file.display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let holder = format!("(pid {}", std::process::id());
    let held = |flags: &[&str], systemctl: Option<&str>| {
        let (code, text) = check_port(&dir, flags, systemctl);
        let line = text.lines().any(|line| line.starts_with(&address) && line.contains(&holder));
        assert!(code == Some(1) && line, "{flags:?}: {code:?} {text}");
        text
    };
    // The file names the address; other settings in it are invalid or unknown.
    for yaml in ["max_n: many\n", "no_such_key: 1\n", "presets: 7\nengine: x\n"] {
        std::fs::write(&file, format!("{yaml}listen: {address}\n")).unwrap();
        held(&["--config", &path], None);
    }
    std::fs::write(&file, "listen: [\n").unwrap();
    held(&["--config", &path, "--listen", &address], None);
    held(&["--config", "/no/such/file", "--listen", &address], None);
    // If nothing readable names an address, the socket unit's counts, else the default.
    let unit = format!("{address} (Stream)");
    let printed = held(&["--config", &path], Some(&unit));
    assert!(
        printed.contains("broken.yaml: (the whole file): expected YAML"),
        "the unreadable file is reported: {printed}"
    );
    // An active socket unit does not make this process the sidecar.
    assert!(!printed.contains("as it should be"), "{printed}");
    for systemctl in [None, Some("")] {
        let (_, text) = check_port(&dir, &["--config", &path], systemctl);
        assert!(text.contains("0.0.0.0:7860"), "{systemctl:?}: {text}");
    }
    // An invalid address leaves nothing to check.
    std::fs::write(&file, "listen: nowhere\n").unwrap();
    let (code, text) = check_port(&dir, &["--config", &path], None);
    assert!(code == Some(78) && text.contains("listen: expected addresses like"), "{text}");
}
