use super::*;

#[test]
fn secrets_are_no_flags_and_the_files_that_hold_them_are() {
    let help = command().render_long_help().to_string();
    for (part, there) in [
        ("--gateway-port", true),
        ("--backends <FILE>", true),
        ("--gateway-bearer-token ", false),
        ("--gateway-bearer-tokens ", false),
        ("--gateway-legacy-bearer-token ", false),
        ("--gateway-bearer-token-file <FILE>", true),
    ] {
        assert_eq!(help.contains(part), there, "{part} in {help}");
    }
    for key in KEYS {
        assert_eq!(key.secret, key.no_flag, "{}", key.name);
    }
}
