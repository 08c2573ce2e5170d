//! The built-in graphs of an engine: for each kind of models one set, a graph for each task.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::{
    Task,
    models::{classify::has_word, kind::ModelKind},
    template::{FamilyDeclaration, GraphFormat, Template, TemplateError, TemplateFile, TemplateTasks},
};

/// The built-in graphs for one kind of models.
#[derive(Debug, PartialEq)]
pub struct GraphSet {
    /// Which models they run.
    pub family: FamilyDeclaration,
    /// The graph of each task.
    pub templates: BTreeMap<Task, Arc<Template>>,
}

/// All built-in graphs of an engine.
#[derive(Debug, Default)]
pub struct GraphCatalog(Vec<Arc<GraphSet>>);

impl GraphCatalog {
    /// Reads files: the name of each, and its content. A binding file (`.yaml`) belongs to the graph (`.json`) of the same
    /// name, or to the one that it names.
    pub fn read(format: GraphFormat, files: &[(&str, &str)]) -> Result<Self, Vec<TemplateError>> {
        let (mut sets, mut errors) = (Vec::new(), Vec::new());
        for (file, bindings) in files {
            let Some(name) = file.strip_suffix(".yaml") else { continue };
            match read_set(format, name, bindings, files) {
                Ok(set) => sets.push(Arc::new(set)),
                Err(faults) => {
                    errors.extend(faults.into_iter().map(|fault| TemplateError(format!("{file}: {fault}"))));
                }
            }
        }
        // The most specific ones first, because the first match runs a model; then by rank and name.
        sets.sort_by(|one, other| {
            let key = |set: &GraphSet| {
                let rank = set.family.rank.unwrap_or(u8::MAX);
                (Reverse(specificity(&set.family)), rank, set.family.name.clone())
            };
            key(one).cmp(&key(other))
        });
        if errors.is_empty() { Ok(Self(sets)) } else { Err(errors) }
    }

    /// All sets.
    pub fn sets(&self) -> impl Iterator<Item = &Arc<GraphSet>> {
        self.0.iter()
    }

    /// The graphs that run a model: its kind, its variant in the engine's words, its name.
    pub fn find(&self, kind: &ModelKind, variant: Option<&str>, name: &str) -> Option<&Arc<GraphSet>> {
        self.sets().find(|set| runs(&set.family, kind, variant, name))
    }
}

fn runs(family: &FamilyDeclaration, kind: &ModelKind, variant: Option<&str>, name: &str) -> bool {
    let Some(selector) = &family.models else { return false };
    let has_variant = selector.variants.is_empty()
        || variant.is_some_and(|variant| selector.variants.iter().any(|listed| listed == variant));
    kind.family_name() == Some(&family.base)
        && selector.kinds.contains(&kind.variant)
        && has_variant
        && (selector.words.is_empty() || selector.words.iter().any(|word| has_word(name, word)))
}

/// How many conditions there are besides the base: the graphs with the most win.
fn specificity(family: &FamilyDeclaration) -> usize {
    family.models.as_ref().map_or(0, |selector| {
        usize::from(!selector.variants.is_empty()) + usize::from(!selector.words.is_empty())
    })
}

fn read_set(
    format: GraphFormat,
    name: &str,
    bindings: &str,
    files: &[(&str, &str)],
) -> Result<GraphSet, Vec<TemplateError>> {
    let error = |message: String| vec![TemplateError(message)];
    let family = TemplateFile::read_family(bindings)?.ok_or_else(|| error("family is missing".to_owned()))?;
    let graph_file = format!("{}.json", family.graph.as_deref().unwrap_or(name));
    let graph = files.iter().find(|(file, _)| *file == graph_file);
    let (_, graph) = graph.ok_or_else(|| error(format!("there is no {graph_file}")))?;
    let TemplateTasks::Declared(templates) = TemplateFile::read(format, graph, bindings)?.tasks else {
        return Err(error("tasks is missing".to_owned()));
    };
    let templates = templates.into_iter().map(|(task, template)| (task, Arc::new(template))).collect();
    Ok(GraphSet { family, templates })
}
