//! Finds what runs a model: built-in graphs, and the other models of the engine that they need beside it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{EngineModel, Runner};
use crate::images::{
    graph_set::{GraphCatalog, GraphSet},
    template::{NodeInput, SubmodelChoice, SubmodelQuery, SubmodelSelector},
};

/// What an engine has for completing its main models.
#[derive(Debug)]
pub struct Completion {
    /// Its built-in graphs.
    pub catalog: &'static GraphCatalog,
    /// Its other models, main ones included, in its order.
    pub submodels: Vec<Submodel>,
}

/// A model that another one may need.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the engine's word of that name")]
pub struct Submodel {
    pub model_type: String,
    pub base: String,
    pub variant: Option<String>,
    pub format: Option<String>,
    /// How the engine's graphs refer to it.
    pub handle: Value,
}

/// They are compared by identity: a new list of the engine's is another one.
impl PartialEq for Completion {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Completion {
    /// What runs this model.
    pub fn runner(&self, model: &EngineModel) -> Runner {
        match self.catalog.find(&model.kind, model.variant.as_deref(), &model.name) {
            Some(set) => match self.submodels_for(set, model) {
                Ok(inputs) => Runner::Graphs { set: set.clone(), inputs },
                Err(lacks) => {
                    Runner::Incomplete { graphs: set.family.name.clone(), lacks, is_installed: true }
                }
            },
            None => Runner::None,
        }
    }

    /// The first complete choice; the error names what the last one lacks.
    fn submodels_for(
        &self,
        set: &GraphSet,
        main: &EngineModel,
    ) -> Result<BTreeMap<NodeInput, Value>, String> {
        let choices = &set.family.submodels;
        if choices.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut lacks = Vec::new();
        for choice in choices.iter().filter(|choice| applies(choice, main)) {
            match self.fulfil(choice, main) {
                Ok(inputs) => return Ok(inputs),
                Err(missing) => lacks.push(missing),
            }
        }
        Err(lacks.pop().unwrap_or_else(|| "a graph for its format".to_owned()))
    }

    fn fulfil(
        &self,
        choice: &SubmodelChoice,
        main: &EngineModel,
    ) -> Result<BTreeMap<NodeInput, Value>, String> {
        let (mut inputs, mut missing) = (BTreeMap::new(), Vec::new());
        for (input, selector) in &choice.set {
            let Some(input) = NodeInput::parse(input) else { continue };
            let found = match selector {
                SubmodelSelector::Main(_) => Some(&main.handle),
                SubmodelSelector::Other(query) => self.first(query, main),
            };
            match (found, selector) {
                (Some(handle), _) => drop(inputs.insert(input, handle.clone())),
                // The metadata names it once more.
                (None, SubmodelSelector::Other(query)) if !missing.contains(&describe(query)) => {
                    missing.push(describe(query));
                }
                (None, _) => {}
            }
        }
        if missing.is_empty() { Ok(inputs) } else { Err(missing.join(" and ")) }
    }

    fn first(&self, query: &SubmodelQuery, main: &EngineModel) -> Option<&Value> {
        let any = |listed: &[String], value: Option<&str>| {
            listed.is_empty() || value.is_some_and(|value| listed.iter().any(|listed| listed == value))
        };
        let has_variant = |variant: Option<&str>| {
            if query.variant.iter().any(|listed| listed == "same") {
                variant == main.variant.as_deref()
            } else {
                any(&query.variant, variant)
            }
        };
        let fits = |model: &&Submodel| {
            model.model_type == query.model_type
                && any(&query.base, Some(&model.base))
                && any(&query.format, model.format.as_deref())
                && has_variant(model.variant.as_deref())
                && model.handle != main.handle
        };
        self.submodels.iter().find(fits).map(|model| &model.handle)
    }
}

fn applies(choice: &SubmodelChoice, main: &EngineModel) -> bool {
    let any = |listed: &[String], value: Option<&str>| {
        listed.is_empty() || value.is_some_and(|value| listed.iter().any(|listed| listed == value))
    };
    any(&choice.when.format, main.format.as_deref()) && any(&choice.when.variant, main.variant.as_deref())
}

/// `a model of type vae, base flux`.
fn describe(query: &SubmodelQuery) -> String {
    let conditions = [("base", &query.base), ("variant", &query.variant), ("format", &query.format)];
    let given = conditions.into_iter().filter(|(_, listed)| !listed.is_empty());
    let given = given.map(|(name, listed)| format!("{name} {}", listed.join(" or ")));
    std::iter::once(format!("a model of type {}", query.model_type))
        .chain(given)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The model with another kind, and what runs that.
pub(super) fn with_kind(model: &EngineModel, kind: super::ModelKind) -> EngineModel {
    let changed = EngineModel { kind, ..model.clone() };
    match &changed.completion {
        Some(completion) => {
            let runner = Arc::clone(completion).runner(&changed);
            EngineModel { runner, ..changed }
        }
        None => changed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::images::models::{DetectedFamily, Evidence, ModelKind, ModelVariant};

    fn submodel(model_type: &str, base: &str, variant: Option<&str>, key: &str) -> Submodel {
        Submodel {
            model_type: model_type.to_owned(),
            base: base.to_owned(),
            variant: variant.map(str::to_owned),
            format: (model_type == "main").then(|| "diffusers".to_owned()),
            handle: json!(key),
        }
    }

    fn main(format: &str) -> EngineModel {
        EngineModel {
            kind: ModelKind {
                family: DetectedFamily::Unlisted("z".to_owned()),
                variant: ModelVariant::Main,
                evidence: Evidence::Engine,
            },
            variant: Some("turbo".to_owned()),
            format: Some(format.to_owned()),
            handle: json!("own"),
            ..EngineModel::in_process("k", "n", &super::super::SDXL)
        }
    }

    fn choices() -> Vec<SubmodelChoice> {
        let yaml = "
            - when: {format: [diffusers]}
              set: {loader.source: self}
            - set: {loader.source: {type: main, base: [z], format: [diffusers], variant: [same]}}
            - set: {loader.encoder: {type: encoder, variant: [4b]}, loader.vae: {type: vae, base: [flux]}}";
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn complete(model: &EngineModel, submodels: Vec<Submodel>) -> Result<Vec<String>, String> {
        let completion = Completion { catalog: Box::leak(Box::default()), submodels };
        let family: crate::images::template::FamilyDeclaration =
            serde_saphyr::from_str("{name: z, label: Z, base: z, models: {}}").unwrap();
        let family = crate::images::template::FamilyDeclaration { submodels: choices(), ..family };
        let set = GraphSet { family, templates: BTreeMap::new() };
        let inputs = completion.submodels_for(&set, model)?;
        Ok(inputs.iter().map(|(input, value)| format!("{input}={value}")).collect())
    }

    #[test]
    fn the_first_complete_choice_is_used() {
        let parts = || vec![submodel("encoder", "any", Some("4b"), "e"), submodel("vae", "flux", None, "v")];
        assert_eq!(complete(&main("diffusers"), vec![]), Ok(vec!["loader.source=\"own\"".to_owned()]));
        let split = Ok(vec!["loader.encoder=\"e\"".to_owned(), "loader.vae=\"v\"".to_owned()]);
        assert_eq!(complete(&main("checkpoint"), parts()), split);
        let pipeline = |variant| [parts(), vec![submodel("main", "z", Some(variant), "p")]].concat();
        assert_eq!(complete(&main("checkpoint"), pipeline("base")), split, "another variant");
        let source = Ok(vec!["loader.source=\"p\"".to_owned()]);
        assert_eq!(complete(&main("checkpoint"), pipeline("turbo")), source);
    }

    #[test]
    fn what_is_missing_is_named() {
        let lacks =
            complete(&main("checkpoint"), vec![submodel("encoder", "any", Some("8b"), "e")]).unwrap_err();
        assert_eq!(lacks, "a model of type encoder, variant 4b and a model of type vae, base flux");
    }
}
