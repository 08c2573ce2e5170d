//! The names of the page's files. The build script checks them, too.

/// Whether it has the form of a file of the page, in at most one folder: `main.js`, `charts/line.js`.
pub(crate) fn is_page_path(path: &str) -> bool {
    let (folder, file) = path.split_once('/').map_or((None, path), |(folder, file)| (Some(folder), file));
    folder.is_none_or(is_stem) && is_file_name(file)
}

/// `[a-z0-9_-]+(\.[a-z0-9]+)+`.
fn is_file_name(name: &str) -> bool {
    name.split_once('.').is_some_and(|(stem, extensions)| {
        is_stem(stem)
            && extensions.split('.').all(|extension| !extension.is_empty() && extension.bytes().all(is_plain))
    })
}

fn is_stem(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| is_plain(byte) || matches!(byte, b'_' | b'-'))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}
