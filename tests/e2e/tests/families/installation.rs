//! For each family an engine that has the files or models which it needs, and no others.

use std::time::Duration;

use ada2_sidecar::{
    engine::EngineKind,
    images::{
        graph_set::GraphSet,
        models::{ModelVariant, family_named},
        template::{FamilyDeclaration, SubmodelChoice, SubmodelQuery, SubmodelSelector},
    },
};
use fakes::{
    comfyui::{ComfyScript, ComfyState, ComfyVersion, FakeComfy},
    engine::{Fake, FakeEngine},
    invokeai::{FakeInvoke, InvokeScript, InvokeState},
};
use serde_json::{Value, json};

use super::request::place;

/// Far more than it takes to accept a job; a refused request is waited for as long.
const ACCEPTED: Duration = Duration::from_secs(20);
/// The LoRAs that every engine here has, and how much of each is asked for.
pub(super) const LORAS: [(&str, f64); 2] = [("pencil", 0.5), ("neon", -1.25)];

/// An engine that has what one family needs.
pub(super) struct Installation<E: FakeEngine> {
    /// For messages: engine, family and how it is installed.
    pub(super) label: String,
    /// The model's name in requests.
    pub(super) model: String,
    /// The family's graphs.
    pub(super) set: &'static GraphSet,
    /// Whether it stands for the others of this family, which differ in their parts only.
    pub(super) is_first: bool,
    /// The engine's files or models.
    pub(super) script: E::Script,
}

/// What a job's graph brings to its picture.
pub(super) struct Seen {
    pub(super) pictures: Vec<Vec<u8>>,
    pub(super) loras: Vec<(String, f64)>,
    pub(super) seed: u64,
    pub(super) steps: u64,
}

/// A fake engine that runs families.
pub(super) trait FamilyEngine: FakeEngine<Script: Clone + Send + Sync, Item: Send> {
    const KIND: EngineKind;

    /// How this family can be installed.
    fn installations_of(set: &'static GraphSet) -> Vec<Installation<Self>>;

    /// The last job.
    fn last(fake: &Fake<Self>) -> Seen;

    fn installations() -> Vec<Installation<Self>> {
        let catalog = Self::KIND.graphs().unwrap();
        catalog.sets().flat_map(|set| Self::installations_of(set)).collect()
    }

    /// The first way to install the family of this name.
    fn installation(family: &str) -> Installation<Self> {
        let catalog = Self::KIND.graphs().unwrap();
        let set = catalog.sets().find(|set| set.family.name == family).unwrap();
        Self::installations_of(set).into_iter().next().unwrap()
    }
}

/// Sends a request, and gives the places of the pictures that its job's graph has, read while it runs: they are deleted
/// after it.
pub(super) async fn while_held<E: FamilyEngine, T>(
    fake: &Fake<E>,
    sent: impl Future<Output = T>,
) -> (Vec<u8>, T) {
    let before = fake.items().len();
    fake.change(|engine| engine.hold(true));
    let look = async {
        let accepted = fake.until(|items| items.len() > before);
        let is_accepted = tokio::time::timeout(ACCEPTED, accepted).await.is_ok();
        let pictures = if is_accepted { E::last(fake).pictures } else { Vec::new() };
        fake.change(|engine| engine.hold(false));
        pictures.iter().map(|picture| place(picture)).collect()
    };
    tokio::join!(look, sent)
}

impl FamilyEngine for ComfyState {
    const KIND: EngineKind = EngineKind::ComfyUi;

    fn installations_of(set: &'static GraphSet) -> Vec<Installation<Self>> {
        let family = &set.family;
        let mut script = empty_comfyui();
        let model = if let Some(selector) = &family.models {
            let word = selector.words.first().map_or("mine", String::as_str);
            let architecture = family_named(&family.base).unwrap().metadata_prefixes[0];
            let file = format!("{word}.safetensors");
            script.metadata.insert(file.clone(), json!({"modelspec.architecture": architecture}));
            script.checkpoints.push(file);
            word.to_owned()
        } else {
            for (input, patterns) in &family.files {
                let (_, field) = input.split_once('.').unwrap();
                folder(&mut script, field).push(format!("{}.safetensors", patterns[0].replace('*', "-v1")));
            }
            family.name.clone()
        };
        let label = format!("comfyui {}", family.name);
        vec![Installation { label, model, set, is_first: true, script }]
    }

    fn last(fake: &FakeComfy) -> Seen {
        let item = fake.items().pop().unwrap();
        Seen {
            pictures: fake.pictures_of(&item).iter().map(|picture| picture.to_vec()).collect(),
            loras: item.loras().into_iter().filter_map(|(file, weight)| known_lora(&file, weight)).collect(),
            seed: item.seed(),
            steps: item.steps(),
        }
    }
}

/// Neither the family's own LoRAs nor the ending of the file's name.
fn known_lora(file: &str, weight: f64) -> Option<(String, f64)> {
    let name = file.strip_suffix(".safetensors").unwrap_or(file);
    LORAS.iter().any(|(known, _)| *known == name).then(|| (name.to_owned(), weight))
}

/// The newest ComfyUI, with the LoRAs and nothing else.
pub(super) fn empty_comfyui() -> ComfyScript {
    ComfyScript {
        version: ComfyVersion::NEWEST,
        checkpoints: Vec::new(),
        loras: LORAS.iter().map(|(name, _)| format!("{name}.safetensors")).collect(),
        ..ComfyScript::default()
    }
}

/// The files that an input takes.
pub(super) fn folder<'a>(script: &'a mut ComfyScript, field: &str) -> &'a mut Vec<String> {
    match field {
        "unet_name" => script.diffusion_models.get_or_insert_default(),
        "vae_name" => &mut script.vae,
        "lora_name" => &mut script.loras,
        "control_net_name" => &mut script.controlnet,
        name if name.starts_with("clip_name") => &mut script.text_encoders,
        other => unreachable!("no folder is known for {other}"),
    }
}

impl FamilyEngine for InvokeState {
    const KIND: EngineKind = EngineKind::InvokeAi;

    fn installations_of(set: &'static GraphSet) -> Vec<Installation<Self>> {
        let family = &set.family;
        let selector = family.models.as_ref().unwrap();
        let variants: Vec<Option<&str>> = if selector.variants.is_empty() {
            vec![usual_variant(&family.base, selector.kinds[0])]
        } else {
            selector.variants.iter().map(|variant| Some(variant.as_str())).collect()
        };
        let of_variant = |variant: Option<&str>| {
            if family.submodels.is_empty() {
                return vec![invokeai(set, variant, "diffusers", &[])];
            }
            let fits = |choice: &&SubmodelChoice| {
                let variants = &choice.when.variant;
                variants.is_empty() || variants.iter().any(|listed| Some(listed.as_str()) == variant)
            };
            let choices = family.submodels.iter().filter(fits);
            // What is in SDNQ format may bring its other parts or not, which the fake does not know.
            let format = |choice: &SubmodelChoice| match choice.when.format.first() {
                None => Some("checkpoint".to_owned()),
                Some(first) => Some(first.clone()).filter(|first| first != "sdnq_quantized"),
            };
            let of_choice =
                |choice| Some(invokeai(set, variant, &format(choice)?, &submodels(choice, variant)));
            choices.filter_map(of_choice).collect()
        };
        let mut installations: Vec<_> = variants.into_iter().flat_map(of_variant).collect();
        installations[0].is_first = true;
        installations
    }

    fn last(fake: &FakeInvoke) -> Seen {
        let item = fake.items().pop().unwrap();
        Seen {
            pictures: fake.pictures_of(&item).iter().map(|picture| picture.to_vec()).collect(),
            loras: item.loras(),
            seed: item.number("seed"),
            steps: item.steps(),
        }
    }
}

/// The engine's word, where the graphs run any variant of the base.
fn usual_variant(base: &str, kind: ModelVariant) -> Option<&'static str> {
    match (base, kind) {
        ("sd-1" | "sdxl", _) => Some("normal"),
        ("flux", _) => Some("dev"),
        ("qwen-image", ModelVariant::Edit) => Some("edit"),
        ("qwen-image", _) => Some("generate"),
        _ => None,
    }
}

fn invokeai(
    set: &'static GraphSet,
    variant: Option<&str>,
    format: &str,
    submodels: &[Value],
) -> Installation<InvokeState> {
    let family = &set.family;
    let name = main_name(family);
    let main = installed("main", &family.base, variant, format, name);
    let loras = LORAS.iter().map(|(name, _)| installed("lora", &family.base, None, "lycoris", name));
    let parts: Vec<_> = submodels.iter().map(|model| model["name"].as_str().unwrap()).collect();
    let label = format!("invokeai {} {variant:?} {format} {}", family.name, parts.join(" + "));
    let models = submodels.iter().cloned().chain([main]).chain(loras).collect();
    let script = InvokeScript { models, ..InvokeScript::default() };
    Installation { label, model: name.to_owned(), set, is_first: false, script }
}

/// InvokeAI reports no variant for Kontext: the name has it.
fn main_name(family: &FamilyDeclaration) -> &'static str {
    let is_kontext = family.name == "flux-kontext";
    if is_kontext { "FLUX.1 Kontext dev" } else { "Dream" }
}

/// A model as InvokeAI lists it.
pub(super) fn installed(
    model_type: &str,
    base: &str,
    variant: Option<&str>,
    format: &str,
    name: &str,
) -> Value {
    json!({"key": format!("key of {name}"), "hash": "blake3:0", "name": name, "base": base, "type": model_type,
        "variant": variant, "format": format})
}

fn submodels(choice: &SubmodelChoice, variant: Option<&str>) -> Vec<Value> {
    let of_query = |query: &SubmodelQuery| {
        let first =
            |listed: &[String], otherwise: &str| listed.first().map_or(otherwise.to_owned(), Clone::clone);
        let own = query.variant.first().map(String::as_str);
        let own = if own == Some("same") { variant } else { own };
        let (base, format) = (first(&query.base, "any"), first(&query.format, "checkpoint"));
        installed(&query.model_type, &base, own, &format, &format!("a {}", query.model_type))
    };
    let mut found: Vec<Value> = Vec::new();
    for selector in choice.set.values() {
        if let SubmodelSelector::Other(query) = selector {
            let model = of_query(query);
            if !found.contains(&model) {
                found.push(model);
            }
        }
    }
    found
}
