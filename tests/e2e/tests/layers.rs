//! The layers of both programs, as ARCHITECTURE.md lists them from the ground up: a module imports those below it, its own
//! children and its parent, never one above.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Modules in the order of the table under this heading, each with its place from the ground up.
fn layers(heading: &str) -> BTreeMap<String, usize> {
    let page = include_str!("../../../ARCHITECTURE.md");
    let section = page.split_once(heading).expect("the heading is there").1;
    let rows = section.lines().skip_while(|line| !line.starts_with("| `"));
    let rows = rows.take_while(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| {
        let cell = row.split('|').nth(1).unwrap_or_default();
        cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect::<Vec<_>>()
    });
    names.enumerate().map(|(place, name)| (name, place)).collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory of sources").map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = dirs.iter().flat_map(|dir| sources(dir));
    files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs")).chain(below).collect()
}

/// The top module and the depth of a file below `src`; tests may import what they like.
fn module(source: &Path, file: &Path) -> Option<(String, usize)> {
    let path = file.strip_prefix(source).ok()?.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    (!parts.iter().any(|part| part == "tests")).then(|| (parts[0].clone(), parts.len()))
}

/// The top modules that a text names by `crate::…` or by climbing above its own top module.
fn imports(text: &str, depth: usize) -> Vec<String> {
    let code: String = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n")
        .collect();
    let climbing = "super::".repeat(depth);
    let after = |path: &str| code.split(path).skip(1).flat_map(firsts).collect::<Vec<_>>();
    [after("crate::"), after(&climbing)].concat()
}

/// The first names of a use tree: `a` of `a::b`; `a` and `b` of `{a::{x, y}, b}`.
fn firsts(tree: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|char: char| !(char.is_alphanumeric() || char == '_')).unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(inside) = tree.strip_prefix('{') else { return vec![name(tree)] };
    let (mut depth, mut names) = (0, vec![name(inside)]);
    for (at, char) in inside.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&inside[at + 1..])),
            _ => {}
        }
    }
    names
}

/// Every import of a higher layer.
fn upward(root: &Path, heading: &str) -> Vec<String> {
    let (source, places) = (root.join("src"), layers(heading));
    let mut found = Vec::new();
    for file in sources(&source) {
        let Some((top, depth)) = module(&source, &file) else { continue };
        let Some(place) = places.get(&top) else {
            found.push(format!("{top} is in no layer of ARCHITECTURE.md, {heading:?}"));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for name in imports(&text, depth) {
            if places.get(&name).is_some_and(|other| other > place) {
                found.push(format!("{}: {top} imports {name}, which is above it", file.display()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn no_import_points_to_a_higher_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (program, heading) in
        [("gateway", "### Layers of the gateway"), ("ada2-sidecar", "### Layers of the sidecar")]
    {
        let found = upward(&root.join(program), heading);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[test]
fn use_trees_are_parsed() {
    let text =
        "use crate::{\n    a::{self, x},\n    b,\n};\nfn f() { crate::c::g(); super::d::h(); } // crate::e\n";
    assert_eq!(imports(text, 1), ["a", "b", "", "c", "d"]);
    assert_eq!(imports(text, 2), ["a", "b", "", "c"]);
}
