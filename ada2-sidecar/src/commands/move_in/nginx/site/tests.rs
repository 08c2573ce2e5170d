use super::*;
use crate::commands::move_in::nginx::parse::parse_dump;

const MAIN: &str = "# configuration file /etc/nginx/nginx.conf:\nhttp {\n  include mime.types;\n  \
    include /etc/nginx/conf.d/*.conf;\n  include sites-enabled/*;\n}\n";

fn found(rest: &str) -> Result<Sites, (String, String)> {
    find_sites(&parse_dump(&format!("{MAIN}{rest}")).unwrap(), 7860)
}

fn site(path: &str, text: &str) -> String {
    format!("# configuration file /etc/nginx/{path}:\n{text}\n")
}

#[test]
fn a_port_is_read_as_nginx_reads_it() {
    for (listen, port) in [
        ("7860", Some(7860)),
        ("*:7860", Some(7860)),
        ("192.168.1.5:7860", Some(7860)),
        ("[::]:7860", Some(7860)),
        ("[::1]", Some(80)),
        ("localhost", Some(80)),
        ("localhost:7860", Some(7860)),
        ("unix:/run/x:7860", None),
        ("1.2.3.4:http", None),
    ] {
        assert_eq!(port_of(listen), port, "{listen}");
    }
}

#[test]
fn the_site_of_the_port_is_found_with_its_targets() {
    let site_text = "upstream invoke { server 127.0.0.1:9090 max_fails=0; keepalive 8; }\nserver {\n  listen 7860;\n  \
        client_max_body_size 0;\n  location / { proxy_pass http://invoke; }\n  location /v1/ { proxy_pass http://127.0.0.1:8000/; }\n  \
        location /x { proxy_pass http://$host; }\n}";
    let other = "server { listen 80; location / { proxy_pass http://127.0.0.1:3000; } }";
    let sites =
        found(&format!("{}{}", site("sites-enabled/default", other), site("sites-enabled/ada2", site_text)))
            .unwrap();
    assert_eq!(sites.files, [Path::new("/etc/nginx/sites-enabled/ada2")]);
    let targets: Vec<_> =
        sites.targets.iter().map(|one| (one.location.as_str(), one.address.as_str())).collect();
    assert_eq!(targets, [("/", "127.0.0.1:9090"), ("/v1/", "127.0.0.1:8000")]);
    assert_eq!(sites.differences, []);
    assert_eq!(found(&site("sites-enabled/default", other)).unwrap(), Sites::default());
}

#[test]
fn a_file_that_serves_more_than_the_port_is_refused_with_its_line() {
    for (text, expected) in [
        (
            site("sites-enabled/a", "server { listen 7860; }\nserver { listen 80; }"),
            "a:1 listens on 7860, and /etc",
        ),
        (site("sites-enabled/a", "\nserver { listen 7860; listen 81; }"), "a:2 listens on 7860 and on 81"),
        (
            site("sites-enabled/a", "server { listen 7860; }\nserver { server_name b; }"),
            "a:2 serves something else",
        ),
        (site("other.conf", "server { listen 7860; }"), "other.conf:1 is in nginx's main file"),
    ] {
        let (message, fix) = found(&text).unwrap_err();
        assert!(message.contains(expected), "{message}");
        assert!(fix.contains("into a file of its own"), "{fix}");
    }
    let main =
        "# configuration file /etc/nginx/nginx.conf:\nhttp { server { listen 7860; } include a.conf; }\n";
    assert!(find_sites(&parse_dump(main).unwrap(), 7860).unwrap_err().0.contains("main file"));
    let named = format!(
        "# configuration file /etc/nginx/nginx.conf:\nhttp {{ include a.conf; }}\n{}",
        site("a.conf", "server { listen 7860; }")
    );
    assert!(find_sites(&parse_dump(&named).unwrap(), 7860).unwrap_err().0.contains("included by its name"));
}

#[test]
fn each_difference_is_named_with_its_setting() {
    let text = "server {\n  listen 7860 ssl;\n  listen [::]:7860;\n  server_name ada2.local ai.example.org;\n  \
        include snippets/login.conf;\n  allow 192.168.0.0/16;\n  deny all;\n  client_max_body_size 100m;\n  \
        location /files { alias /srv; }\n}";
    let included = site("snippets/login.conf", "auth_basic \"x\";");
    let sites = found(&format!("{}{included}", site("conf.d/a.conf", text))).unwrap();
    let all: Vec<_> = sites.differences.iter().map(|(line, fix)| format!("{line} -> {fix}")).collect();
    for expected in [
        "a.conf:2: listen 7860 ssl -> the sidecar speaks plain HTTP",
        "a.conf:3: listen [::]:7860 -> the socket unit listens on 0.0.0.0:7860",
        "a.conf:4: server_name ada2.local ai.example.org -> set `allowed_hosts` to ai.example.org",
        "auth_basic x -> set `token`",
        "allow 192.168.0.0/16 -> `allow_from`",
        "client_max_body_size 100m -> `max_upload_bytes`",
        "alias /srv -> the sidecar serves no files",
    ] {
        assert!(all.iter().any(|line| line.contains(expected)), "{expected}: {all:#?}");
    }
    assert_eq!(all.len(), 7, "{all:#?}");
}
