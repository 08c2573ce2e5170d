//! REFERENCE.md matches the tables in the code.

use std::path::Path;

use fakes::reference::{check, check_names, settings};

use crate::{config::KEYS, request::image_request::REQUEST_FIELDS};

#[test]
fn the_reference_is_generated() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    check(&page, &[("settings", settings(KEYS, "variable"))]);
    check_names(&page, "parameters", REQUEST_FIELDS.iter().map(ToString::to_string));
}
