//! REFERENCE.md matches the tables in the code.

#[cfg(feature = "shuttle")]
mod interleavings;

use std::path::Path;

use fakes::reference::{check, check_names, settings};
use proptest::prelude::ProptestConfig;

use crate::{config::KEYS, request::image_request::REQUEST_FIELDS};

/// For a property that takes long to check: so many cases, unless `PROPTEST_CASES` says how many.
#[expect(
    clippy::disallowed_methods,
    reason = "proptest reads this variable, and does not tell whether it did"
)]
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        config
    } else {
        ProptestConfig { cases: default, ..config }
    }
}

#[test]
fn the_reference_is_generated() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    check(&page, &[("settings", settings(KEYS, "variable"))]);
    check_names(&page, "parameters", REQUEST_FIELDS.iter().map(ToString::to_string));
}
