//! REFERENCE.md has what the tables in the code say.

use std::path::Path;

use fakes::reference::{check, check_names, code, settings, table};

use crate::{
    config::{KEYS, checks::CHECKS},
    images::parameters::{PARAMETERS, Treatment},
    smi::fields,
};

#[test]
fn the_reference_is_generated() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    check(
        &page,
        &[("settings", settings(KEYS, "key")), ("readings", readings()), ("parameters", parameters())],
    );
    check_names(&page, "readiness checks", CHECKS.iter().map(ToString::to_string));
}

fn readings() -> String {
    let rows = fields::supported().map(|field| {
        let others = fields::ALIASES.iter().filter(|(_, name)| *name == field.name);
        let others: Vec<_> = others.map(|(other, _)| code(other)).collect();
        let unit = match field.unit {
            fields::FieldUnit::Text => "text",
            unit => unit.as_str(),
        };
        vec![code(field.name), others.join(", "), unit.to_owned()]
    });
    table(&["field", "other spellings", "unit"], rows)
}

fn parameters() -> String {
    let rows = PARAMETERS.iter().map(|parameter| {
        let names: Vec<_> = parameter.names.iter().map(|name| code(name)).collect();
        let treatment = match parameter.treatment {
            Treatment::Works => "works",
            Treatment::Ignored => "ignored",
            Treatment::Partly => "partly",
            Treatment::Rejected => "rejected",
        };
        // The graphs of both engines take the same values.
        vec![names.join(", "), treatment.to_owned(), treatment.to_owned(), parameter.description.to_owned()]
    });
    table(&["parameter", "InvokeAI", "ComfyUI", "meaning"], rows)
}
