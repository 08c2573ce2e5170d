//! The files for systemd and launchd: what they promise must fit what the programs do.

use std::time::Duration;

use ada2_sidecar::config as sidecar;
use service::settings::{SettingSpec, duration};

fn default_of(keys: &[SettingSpec], name: &str) -> Duration {
    let key = keys.iter().find(|key| key.name == name || key.env == name).unwrap();
    duration(key.default.unwrap()).unwrap()
}

#[test]
fn the_launchd_job_runs_the_binary_itself_and_waits_for_its_drain() {
    let text = include_bytes!("../../../launchd/com.ai.gateway.plist");
    let job = plist::Value::from_reader_xml(&text[..]).unwrap().into_dictionary().unwrap();
    let number = |name: &str| job[name].as_unsigned_integer().unwrap();
    assert_eq!(job["Label"].as_string(), Some("com.ai.gateway"));
    let command = job["ProgramArguments"].as_array().unwrap();
    assert_eq!(command[0].as_string(), Some("/usr/local/bin/gateway"), "no shell in between");
    assert_eq!(command[1].as_string(), Some("serve"));
    assert_eq!(job["KeepAlive"].as_boolean(), Some(true));
    assert_eq!(job["RunAtLoad"].as_boolean(), Some(true));
    let grace = default_of(gateway::config::keys::KEYS, "GATEWAY_SHUTDOWN_GRACE");
    assert!(
        Duration::from_secs(number("ExitTimeOut")) > grace + Duration::from_secs(10),
        "or the drain is cut off"
    );
    let throttle = number("ThrottleInterval");
    assert!((30..=60).contains(&throttle), "no fast loop after exit 78, and back soon after it is fixed");
    for limits in ["SoftResourceLimits", "HardResourceLimits"] {
        let files = job[limits].as_dictionary().unwrap()["NumberOfFiles"].as_unsigned_integer().unwrap();
        assert!(files >= 4096, "{limits}");
    }
    assert!(
        !job.contains_key("EnvironmentVariables"),
        "a value here would win over the env file, where people look; and everybody can read it"
    );
    let umask = number("Umask");
    assert_eq!(umask, 0o027, "the owner of the Mac may read logs and images, nobody else");
}

#[test]
fn the_systemd_unit_notifies_waits_for_the_drain_and_keeps_the_card_visible() {
    let unit = include_str!("../../../systemd/ada2-sidecar.service");
    let values = |name: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
    };
    assert_eq!(values("Type"), ["notify"]);
    assert_eq!(values("RestartPreventExitStatus"), ["78"]);
    assert_eq!(
        values("ExecReload"),
        ["/usr/bin/ada2-sidecar reload"],
        "fails as the reload does; not as root, whom the sandbox does not hold"
    );
    assert_eq!(values("RuntimeDirectory"), ["ada2-sidecar"], "or the reload finds no socket to ask at");
    assert_eq!(values("Restart"), ["on-failure"]);
    let number = |name: &str| values(name)[0].parse::<u64>().unwrap();
    let (pause, starts) = (number("RestartSec"), number("StartLimitBurst"));
    let interval = number("StartLimitIntervalSec");
    assert!(pause >= 1 && interval / pause < starts, "a failure that may pass is tried again, but not fast");
    assert!(starts <= interval, "starts by a socket after exit 78 are stopped");
    let stop_post = values("ExecStopPost")[0];
    assert!(stop_post.contains("\"$EXIT_STATUS\" = 78 ]; then sleep 5"), "{stop_post}");
    for pulled in ["Requires", "After"] {
        assert!(
            values(pulled).contains(&"ada2-sidecar.socket"),
            "a restart brings back a socket that gave up"
        );
    }
    let grace = default_of(sidecar::KEYS, "shutdown_grace");
    let stop = duration(values("TimeoutStopSec")[0]).unwrap();
    assert!(stop > grace + Duration::from_secs(10), "or what was cancelled is not verified");
    assert!(values("PrivateDevices").is_empty(), "the card's device files are needed");
    assert_eq!(values("DevicePolicy"), ["closed"]);
    assert_eq!(
        values("DeviceAllow"),
        ["char-195 rw"],
        "a name is looked up once, before a late driver is there"
    );
    assert_eq!(values("ProtectProc"), ["default"], "otherwise VRAM cannot be assigned to processes");
    assert_eq!(values("StateDirectory"), ["ada2-sidecar"]);
}

#[test]
fn the_systemd_socket_listens_where_the_service_would() {
    let socket = include_str!("../../../systemd/ada2-sidecar.socket");
    let listens: Vec<_> = socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let listen = sidecar::KEYS.iter().find(|key| key.name == "listen").and_then(|key| key.default);
    assert_eq!(listens, [listen.unwrap()]);
    // One socket for each connection would start a service for each.
    assert!(!socket.contains("Accept=yes"));
    // A connection that waits starts a service that ended with 78 every 5 s: that must stay below the limit.
    let number = |name: &str| -> u64 {
        socket.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    assert!(number("TriggerLimitIntervalSec=") / 5 < number("TriggerLimitBurst="));
}

#[test]
fn the_packaged_configuration_is_valid_as_it_is_and_with_every_setting() {
    let packaged = include_str!("../../../systemd/config.yaml");
    let file = fakes::fresh_dir("packaged-config").join("config.yaml");
    let load = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let flags = ["ada2-sidecar", "check-config", "--config", file.to_str().unwrap()];
        sidecar::load(&ada2_sidecar::cli::command().get_matches_from(flags), &|_| None)
    };
    load(packaged).unwrap();
    let is_setting =
        |line: &&str| sidecar::KEYS.iter().any(|key| line.starts_with(&format!("{}:", key.name)));
    let settings: Vec<_> =
        packaged.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect();
    assert!(settings.len() >= 8, "{settings:?}");
    load(&settings.join("\n")).unwrap();
}

/// The value of a setting in the example of the env file, as the gateway reads it.
fn in_the_example(name: &str) -> String {
    let example = include_str!("../../../gateway/env/ada2-images.env.example");
    let line = example.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.expect(name).to_owned()
}

#[test]
fn newsyslog_rotates_the_log_that_the_env_file_names_and_needs_neither_pid_file_nor_signal() {
    let conf = include_str!("../../../launchd/com.ai.gateway.newsyslog.conf");
    let line = conf.lines().find(|line| !line.starts_with('#')).unwrap();
    let [log, owner, mode, _count, _size, _when, flags] = line.split_whitespace().collect::<Vec<_>>()[..]
    else {
        panic!("{line}")
    };
    assert_eq!(log, in_the_example("GATEWAY_LOG_FILE"));
    let job = include_str!("../../../launchd/com.ai.gateway.plist");
    assert!(job.contains("<string>_gateway</string>") && owner.starts_with("_gateway:"));
    assert_eq!((mode, flags), ("640", "JN"), "for the group, compressed, without a signal");
}

#[test]
fn the_example_env_file_has_no_problems_once_it_has_a_token() {
    let dir = fakes::fresh_dir("env-example");
    let example = include_str!("../../../gateway/env/ada2-images.env.example");
    let load = |text: &str| {
        let file = dir.join(".env");
        std::fs::write(&file, text).unwrap();
        let yaml =
            "backends: {gpu_heavy: {base_url: 'http://${ADA2_HOST}:7860', supported_capabilities: [images]}}";
        std::fs::write(dir.join("backends_config.yaml"), yaml).unwrap();
        let flags = ["gateway", "--env-file", file.to_str().unwrap()];
        gateway::config::load(&gateway::cli::command().get_matches_from(flags), &|_| None)
    };
    let problems = load(example).unwrap_err();
    assert!(problems.len() == 1 && problems[0].to_string().contains("GATEWAY_BEARER_TOKEN"), "{problems:?}");
    let loaded =
        load(&example.replace("GATEWAY_BEARER_TOKEN=\n", "GATEWAY_BEARER_TOKEN=0123456789abcdef\n")).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(loaded.config.listen, ("0.0.0.0".to_owned(), 8800));
}
