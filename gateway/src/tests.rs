//! REFERENCE.md matches the tables in the code.

use std::path::Path;

use fakes::reference::{check, settings};

use crate::config::KEYS;

#[test]
fn the_reference_is_generated() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    check(&page, &[("settings", settings(KEYS, "variable"))]);
}
