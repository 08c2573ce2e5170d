//! REFERENCE.md has what the tables in the code say.

use std::path::Path;

use fakes::reference::{check, check_names, code, settings, table};

use crate::{
    config::{EngineKind, KEYS, checks::CHECKS},
    images::{
        Task,
        capabilities::TaskCapabilities,
        graph_set::{GraphCatalog, GraphSet},
        parameters::{PARAMETERS, Treatment},
        template::SizeRule,
    },
    smi::fields,
};

#[test]
fn the_reference_is_generated() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    check(
        &page,
        &[
            ("settings", settings(KEYS, "key")),
            ("readings", readings()),
            ("parameters", parameters()),
            ("families of InvokeAI", families(EngineKind::InvokeAi)),
            ("families of ComfyUI", families(EngineKind::ComfyUi)),
        ],
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

/// One row for each set of built-in graphs.
fn families(kind: EngineKind) -> String {
    let head = ["family", "", "new images", "edit", "with a mask", "usually", "sizes", "has an effect"];
    let mut rows: Vec<_> = kind.graphs().into_iter().flat_map(GraphCatalog::sets).map(family).collect();
    rows.sort();
    table(&head, rows)
}

fn family(set: &std::sync::Arc<GraphSet>) -> Vec<String> {
    let of = |task| {
        set.templates.get(&task).map(|template| (template, TaskCapabilities::of_template(task, template)))
    };
    let kinds = [of(Task::Generate), of(Task::Edit), of(Task::Inpaint)];
    let edits = |at: usize| match &kinds[at] {
        None => String::new(),
        Some((template, task)) => {
            let (_, most) = task.images;
            let how = if template.takes_references() { "references" } else { "strength" };
            match (template.takes_references(), most) {
                (true, 1) => "1 reference".to_owned(),
                (true, most) => format!("1 to {most} {how}"),
                (false, _) if task.parameters.contains(&"strength") => format!("by {how}"),
                (false, _) => "yes".to_owned(),
            }
        }
    };
    let (template, task) = kinds.iter().flatten().next().expect("a task");
    let usual = |name: &str| task.usual.get(name).map(|value| value.to_string().replace('"', ""));
    let usually = [
        usual("steps").map(|steps| format!("{steps} steps")),
        usual("cfg_scale").map(|scale| format!("guidance {scale}")),
        usual("scheduler"),
    ];
    let sizes = match (usual("size"), template.rules.size) {
        (Some(size), _) => format!("{size}, multiples of {}", task.multiple),
        (None, Some(SizeRule::Ignore)) => "its own".to_owned(),
        (None, _) => format!("the image's, multiples of {}", task.multiple),
    };
    let mut parameters: Vec<_> = Vec::new();
    for name in kinds.iter().flatten().flat_map(|(_, task)| task.parameters.iter().map(|name| code(name))) {
        if !parameters.contains(&name) {
            parameters.push(name);
        }
    }
    vec![
        code(&set.family.name),
        set.family.label.clone(),
        if kinds[0].is_some() { "yes".to_owned() } else { String::new() },
        edits(1),
        edits(2),
        usually.into_iter().flatten().collect::<Vec<_>>().join(", "),
        sizes,
        parameters.join(", "),
    ]
}
