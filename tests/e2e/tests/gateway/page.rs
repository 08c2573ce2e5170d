//! The web page and its files: what is served, with which headers, and how much of it a first view loads.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use e2e::gateway::Gateway;
use fakes::{TestResponse, upstream::Upstream};
use flate2::read::GzDecoder;
use reqwest::Method;

/// Compressed, of all that a first view loads.
const MAX_BYTES: usize = 60_000;
/// Of these, scripts.
const MAX_SCRIPT_BYTES: usize = 45_000;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gateway/page")
}

/// Every file of the page, as `main.js` or `charts/line.js`.
fn names() -> Vec<String> {
    let list = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'))
            .collect::<Vec<_>>()
    };
    let all =
        list(&folder()).into_iter().flat_map(|path| if path.is_dir() { list(&path) } else { vec![path] });
    let mut names: Vec<_> =
        all.map(|path| path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn path_of(name: &str) -> String {
    if name == "index.html" { "/ui".to_owned() } else { format!("/ui/page/{name}") }
}

fn extension(name: &str) -> &str {
    name.rsplit('.').next().unwrap()
}

fn mime(name: &str) -> &'static str {
    match extension(name) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => "a type that no file of the page has",
    }
}

/// With these headers, without a token.
async fn ask(gateway: &Gateway, method: Method, path: &str, lines: &[(&str, &str)]) -> TestResponse {
    let request = lines
        .iter()
        .fold(gateway.anonymous(method, path), |request, (name, value)| request.header(*name, *value));
    TestResponse::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn every_file_of_the_page_is_served_with_its_type_compressed_where_that_is_taken() {
    let gateway = Gateway::start(&Upstream::start().await, &[]).await;
    for name in names() {
        let (path, file) = (path_of(&name), fs::read(folder().join(&name)).unwrap());
        let plain = ask(&gateway, Method::GET, &path, &[]).await;
        assert_eq!((plain.status, plain.header("content-type")), (200, mime(&name)), "{name}");
        assert_eq!((plain.bytes.as_ref(), plain.header("content-encoding")), (file.as_slice(), ""), "{name}");
        let accept = ("accept-encoding", "gzip, deflate, br");
        let gzip = ask(&gateway, Method::GET, &path, &[accept]).await;
        assert_eq!((gzip.status, gzip.header("content-encoding")), (200, "gzip"), "{name}");
        let mut decoded = Vec::new();
        GzDecoder::new(gzip.bytes.as_ref()).read_to_end(&mut decoded).unwrap();
        assert_eq!(decoded, file, "{name}");
        for answer in [&plain, &gzip] {
            let headers =
                ["cache-control", "vary", "x-content-type-options"].map(|header| answer.header(header));
            assert_eq!(headers, ["no-cache", "Accept-Encoding", "nosniff"], "{name}");
        }
        assert_ne!(plain.header("etag"), gzip.header("etag"), "{name}: two representations, two tags");
        let tag = gzip.header("etag").to_owned();
        let head = ask(&gateway, Method::HEAD, &path, &[accept]).await;
        assert_eq!((head.status, head.bytes.len(), head.header("etag")), (200, 0, tag.as_str()), "{name}");
        assert_eq!(head.header("content-length"), gzip.bytes.len().to_string(), "{name}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = ask(&gateway, Method::GET, &path, &[accept, ("if-none-match", &known)]).await;
            assert_eq!(
                (again.status, again.bytes.len(), again.header("etag")),
                (304, 0, tag.as_str()),
                "{name}"
            );
        }
        let other = ask(&gateway, Method::GET, &path, &[("if-none-match", &tag)]).await;
        assert_eq!(other.status, 200, "{name}: the plain bytes are not what the client has");
    }
}

#[tokio::test]
async fn the_page_may_load_and_run_only_its_own_files() {
    let gateway = Gateway::start(&Upstream::start().await, &[]).await;
    let page = ask(&gateway, Method::GET, "/ui", &[]).await;
    let headers = ["content-security-policy", "referrer-policy"].map(|name| page.header(name));
    assert_eq!(headers, [POLICY, "no-referrer"]);
    let permissions: Vec<_> = page.header("permissions-policy").split(", ").collect();
    assert!(
        permissions.contains(&"camera=()") && permissions.iter().all(|one| one.ends_with("=()")),
        "{permissions:?}"
    );
    assert_eq!(page.header("cross-origin-opener-policy"), "", "a browser complains of it over plain HTTP");
    let text = String::from_utf8(page.bytes.to_vec()).unwrap();
    for inline in ["<style", "style=", " onclick", " onload", "<base", "http://", "https://"] {
        assert!(!text.contains(inline), "{inline}: {text}");
    }
    let scripts = text.split("<script").skip(1).map(|rest| rest.split_once("</script>").unwrap().0);
    scripts.for_each(|script| assert!(script.contains(" src=") && script.ends_with('>'), "inline: {script}"));
}

#[tokio::test]
async fn over_https_the_page_is_alone_in_its_window() {
    let behind = ["--trust-proxy-cidrs", "127.0.0.0/8"];
    let gateway = Gateway::start(&Upstream::start().await, &behind).await;
    for (scheme, expected) in [("https", "same-origin"), ("http", "")] {
        let lines = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", scheme)];
        let page = ask(&gateway, Method::GET, "/ui", &lines).await;
        assert_eq!((page.status, page.header("cross-origin-opener-policy")), (200, expected), "{scheme}");
    }
}

#[tokio::test]
async fn other_names_are_not_found_and_other_addresses_are_refused() {
    let gateway = Gateway::start(&Upstream::start().await, &[]).await;
    for path in
        ["/ui/page/index.html", "/ui/page/nothing.js", "/ui/page/folder/nothing.js", "/ui/page/main.js.gz"]
    {
        let answer = ask(&gateway, Method::GET, path, &[]).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}");
    }
    for path in ["/ui/page/", "/ui/page/a/b/c.js", "/ui/page/%6dain.js", "/ui/page/Main.js", "/ui/page/.x"] {
        let answer = ask(&gateway, Method::GET, path, &[]).await;
        assert_eq!((answer.status, answer.code()), (401, "invalid_api_key"), "{path}");
    }
    let wrong = ask(&gateway, Method::POST, "/ui/page/main.js", &[]).await;
    assert_eq!((wrong.status, wrong.code()), (405, "method_not_allowed"));
    let closed = Gateway::start(&Upstream::start().await, &["--ui-ip-allowlist", "10.0.0.0/8"]).await;
    for path in names().iter().map(|name| path_of(name)) {
        let answer = ask(&closed, Method::GET, &path, &[]).await;
        assert_eq!((answer.status, answer.code()), (403, "ip_not_allowed"), "{path}");
    }
}

/// What follows each of these marks, up to the closing quote.
fn quoted_after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.split(mark)
        .skip(1)
        .filter_map(|rest| {
            let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''))?;
            rest[1..].split(quote).next()
        })
        .collect()
}

/// The files that a script imports when it is loaded: `import … from "./x.js"`, `export … from`, `import "./x.js"`.
fn static_imports(name: &str, text: &str) -> Vec<String> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let found = [quoted_after(text, "from "), quoted_after(text, "import ")].concat();
    let resolve = |target: &str| {
        let Some(relative) = target.strip_prefix("./") else {
            return match target.strip_prefix("../") {
                Some(name) => name.to_owned(),
                None => target.strip_prefix("/ui/page/").unwrap().to_owned(),
            };
        };
        if folder.is_empty() { relative.to_owned() } else { format!("{folder}/{relative}") }
    };
    found.into_iter().filter(|target| target.starts_with(['.', '/'])).map(resolve).collect()
}

/// What index.html loads, and what that loads.
fn first_view() -> BTreeSet<String> {
    let read = |name: &str| {
        assert!(folder().join(name).is_file(), "the page loads {name}, which does not exist");
        fs::read_to_string(folder().join(name)).unwrap()
    };
    let index = read("index.html");
    let named = [quoted_after(&index, "href="), quoted_after(&index, "src=")].concat();
    let mut to_read = Vec::new();
    for target in named.into_iter().filter(|target| !target.starts_with('#')) {
        assert!(target.starts_with("/ui/page/"), "{target} is not the page's");
        to_read.push(target["/ui/page/".len()..].to_owned());
    }
    let mut loaded = BTreeSet::from(["index.html".to_owned()]);
    while let Some(name) = to_read.pop() {
        let text = read(&name);
        if extension(&name) == "js" && !loaded.contains(&name) {
            to_read.extend(static_imports(&name, &text));
        }
        loaded.insert(name);
    }
    loaded
}

#[tokio::test]
async fn a_first_view_loads_only_files_that_exist_and_few_bytes() {
    let gateway = Gateway::start(&Upstream::start().await, &[]).await;
    let loaded = first_view();
    assert!(
        loaded.iter().any(|name| extension(name) == "js")
            && loaded.iter().any(|name| extension(name) == "css"),
        "{loaded:?}"
    );
    let (mut total, mut scripts) = (0, 0);
    for name in &loaded {
        let answer = ask(&gateway, Method::GET, &path_of(name), &[("accept-encoding", "gzip")]).await;
        assert_eq!(answer.status, 200, "{name}");
        total += answer.bytes.len();
        scripts += if extension(name) == "js" { answer.bytes.len() } else { 0 };
    }
    assert!(
        total <= MAX_BYTES,
        "a first view loads {total} bytes, at most {MAX_BYTES} are allowed: {loaded:?}"
    );
    assert!(
        scripts <= MAX_SCRIPT_BYTES,
        "{scripts} bytes of them are scripts, at most {MAX_SCRIPT_BYTES} are allowed"
    );
}

#[test]
fn imports_are_found_as_a_browser_finds_them() {
    let text = "import { a } from \"./a.js\";\nimport './b.js';\nexport * from \"../c.js\";\nconst later = () => \
                import(\"./d.js\");\nimport {\n  e,\n} from '/ui/page/x/e.js';\nlet s = \"from here\";\n";
    let mut found = static_imports("charts/line.js", text);
    found.sort();
    assert_eq!(found, ["c.js", "charts/a.js", "charts/b.js", "x/e.js"]);
}

#[tokio::test]
async fn where_no_token_is_needed_the_page_is_told_not_to_ask_for_one() {
    let upstream = Upstream::start().await;
    let dir = fakes::fresh_dir("page-without-token");
    fs::write(dir.join(".env"), "GATEWAY_AUTH=off\n").unwrap();
    let open = Gateway::start_in(dir, &e2e::gateway::gpu_heavy(&upstream), &[]).await;
    let page = ask(&open, Method::GET, "/ui", &[("accept-encoding", "gzip")]).await;
    assert!(String::from_utf8_lossy(&page.bytes).contains("<html data-auth=\"off\" lang=\"en\">"));
    assert_eq!((page.header("content-security-policy"), page.header("cache-control")), (POLICY, "no-store"));
    let guarded = Gateway::start(&upstream, &[]).await;
    let page = ask(&guarded, Method::GET, "/ui", &[]).await;
    assert!(!String::from_utf8_lossy(&page.bytes).contains("data-auth"));
}
