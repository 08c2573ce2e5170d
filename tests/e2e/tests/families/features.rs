//! The table of features: each family by task. Whether a parameter has an effect is seen in the picture, which the fakes
//! compute from everything that reaches the sampler: what changes nothing must be named as ignored, and nothing else.

use std::{collections::BTreeSet, time::Duration};

use ada2_sidecar::images::{
    Task,
    template::{SizeRule, Template},
};
use e2e::sidecar::Sidecar;
use fakes::{TestResponse, comfyui::ComfyState, engine::Fake, invokeai::InvokeState};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    installation::{FamilyEngine, Installation, LORAS, while_held},
    request::{HEIGHT, Made, Request, WIDTH, pixels},
};

/// Families checked at once.
const CONCURRENCY: usize = 12;
/// Far more than a start takes.
const START: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn every_family_of_comfyui_does_what_it_says() {
    every_family::<ComfyState>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_of_invokeai_does_what_it_says() {
    every_family::<InvokeState>().await;
}

async fn every_family<E: FamilyEngine>() {
    let checks = E::installations().into_iter().map(|installation| async move { check(&installation).await });
    let faults: Vec<String> =
        stream::iter(checks).buffer_unordered(CONCURRENCY).flat_map(stream::iter).collect().await;
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// All faults of a family.
async fn check<E: FamilyEngine>(installation: &Installation<E>) -> Vec<String> {
    let fake = Fake::<E>::start().await;
    fake.change(|engine| {
        *engine.script() = installation.script.clone();
        engine.set_job_time(Duration::ZERO);
    });
    let sidecar = Sidecar::of(&fake, &["--warm-up", "on"]).await;
    let mut family = Family {
        installation,
        fake: &fake,
        sidecar: &sidecar,
        faults: Vec::new(),
        effective: BTreeSet::new(),
    };
    if tokio::time::timeout(START, sidecar.until_ready()).await.is_err() {
        let checks = sidecar.readyz().await.checks;
        let model =
            checks.iter().find(|check| check.name == "engine_model").map(|check| check.message.clone());
        let entry = family.entry().await;
        family.fault("start", &format!("never ready: {model:?}, {entry}"));
        return family.faults;
    }
    for task in [Task::Generate, Task::Edit, Task::Inpaint] {
        match installation.set.templates.get(&task) {
            Some(_) if !installation.is_first => drop(family.make(task.name(), &family.request(task)).await),
            Some(template) => family.check_task(task, template).await,
            None => family.check_refused(task).await,
        }
    }
    if installation.is_first {
        family.check_capabilities().await;
    }
    family.faults
}

struct Family<'a, E: FamilyEngine> {
    installation: &'a Installation<E>,
    fake: &'a Fake<E>,
    sidecar: &'a Sidecar,
    faults: Vec<String>,
    /// The parameters that changed a picture of any task.
    effective: BTreeSet<String>,
}

/// What a task took, as its pictures show.
struct Effects {
    scheduler: String,
    ignored: BTreeSet<String>,
}

impl<E: FamilyEngine> Family<'_, E> {
    fn fault(&mut self, cell: &str, what: &str) {
        self.faults.push(format!("{}, {cell}: {what}", self.installation.label));
    }

    fn require(&mut self, holds: bool, cell: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.fault(cell, &what());
        }
    }

    fn request(&self, task: Task) -> Request {
        let request = Request::new(
            task,
            u8::from(task != Task::Generate),
            json!({"model": self.installation.model, "prompt": "a red cat", "seed": 7}),
        );
        // The usual sizes take long to paint.
        if task == Task::Generate {
            request.with([("size", json!(format!("{WIDTH}x{HEIGHT}")))])
        } else {
            request
        }
    }

    async fn make(&mut self, cell: &str, request: &Request) -> Option<Made> {
        match request.make(self.sidecar).await {
            Ok(made) => {
                let seen = E::last(self.fake);
                let (width, height) = made.pixels.dimensions();
                let size = format!("{width}x{height}");
                let is_told = made.size == size && made.settings["size"] == *size;
                self.require(is_told, cell, || format!("{size} was made, {} told", made.settings["size"]));
                for (name, engine) in [("seed", seen.seed), ("steps", seen.steps)] {
                    self.require(made.settings[name] == engine, cell, || {
                        format!("{name} {engine} ran, {} told", made.settings[name])
                    });
                }
                self.require(made.settings["model"] == *self.installation.model, cell, || "model".to_owned());
                Some(made)
            }
            Err(error) => {
                self.fault(cell, &error);
                None
            }
        }
    }

    async fn check_task(&mut self, task: Task, template: &Template) {
        let cell = task.name();
        let base = self.request(task);
        let Some(plain) = self.make(cell, &base).await else { return };
        self.require(plain.ignored.is_empty(), cell, || {
            format!("nothing was sent, {:?} ignored", plain.ignored)
        });
        self.check_usual(cell, template, &plain);
        let another = base.with([("prompt", json!("a blue dog"))]);
        if let Some(another) = self.make(cell, &another).await {
            self.require(another.pixels != plain.pixels, cell, || "the prompt changes nothing".to_owned());
        }
        self.check_size(task, template, &plain);
        let effects = self.effects(cell, &base, &plain).await;
        self.check_fixed(cell, template, &base, &plain).await;
        self.check_everything(cell, &base, &effects).await;
        self.check_loras(cell, template, &base, &plain).await;
        if task != Task::Generate {
            self.check_pictures(task, template, &base).await;
        }
    }

    /// Without a word about them, the graph's own values run.
    fn check_usual(&mut self, cell: &str, template: &Template, plain: &Made) {
        let usual = [
            ("steps", json!(template.default_steps())),
            ("cfg_scale", json!(template.default_cfg_scale())),
            ("scheduler", json!(template.default_scheduler())),
        ];
        for (name, usual) in usual {
            self.require(plain.settings[name] == usual, cell, || {
                format!("{name}: usually {usual}, {} told", plain.settings[name])
            });
        }
    }

    fn check_size(&mut self, task: Task, template: &Template, plain: &Made) {
        // Some families make what they edit at a size of their own.
        let is_own = template.rules.size == Some(SizeRule::Ignore) && template.takes_references();
        if task == Task::Generate || !is_own {
            let expected = format!("{WIDTH}x{HEIGHT}");
            self.require(plain.size == expected, task.name(), || format!("{expected} became {}", plain.size));
        }
        if task == Task::Inpaint {
            let source = pixels(0);
            let kept =
                |(x, y, pixel): (u32, u32, &image::Rgb<u8>)| x < WIDTH / 2 || pixel == source.get_pixel(x, y);
            let is_kept =
                plain.pixels.dimensions() == source.dimensions() && plain.pixels.enumerate_pixels().all(kept);
            self.require(is_kept, task.name(), || "a pixel that the mask keeps changed".to_owned());
            let is_changed = plain.pixels != source;
            self.require(is_changed, task.name(), || "nothing was repainted".to_owned());
        }
    }

    /// Sends each parameter by itself.
    async fn effects(&mut self, cell: &str, base: &Request, plain: &Made) -> Effects {
        let scheduler = self.another_scheduler().await;
        let parameters = [
            ("negative_prompt", json!("dogs")),
            ("cfg_scale", json!(6.25)),
            ("strength", json!(0.5)),
            ("quality", json!("high")),
            ("steps", json!(3)),
            ("scheduler", json!(scheduler)),
            ("size", json!(format!("{}x{}", HEIGHT * 2, WIDTH * 2))),
        ];
        let mut ignored = BTreeSet::new();
        for (name, value) in parameters {
            let cell = format!("{cell} with {name}");
            if self.has_effect(&cell, &base.with([(name, value)]), plain, name).await == Some(false) {
                ignored.insert(name.to_owned());
            }
        }
        if ignored.contains("negative_prompt") && !ignored.contains("cfg_scale") {
            let guided = base.with([("cfg_scale", json!(6.25))]);
            let cell = format!("{cell} with cfg_scale and negative_prompt");
            if let Some(plain) = self.make(&cell, &guided).await {
                let both = guided.with([("negative_prompt", json!("dogs"))]);
                if self.has_effect(&cell, &both, &plain, "negative_prompt").await == Some(true) {
                    ignored.remove("negative_prompt");
                }
            }
        }
        Effects { scheduler, ignored }
    }

    /// Whether this changes the picture, which must be what the answer says.
    async fn has_effect(&mut self, cell: &str, request: &Request, plain: &Made, name: &str) -> Option<bool> {
        let made = self.make(cell, request).await?;
        let has_effect = made.pixels != plain.pixels;
        let expected: &[&str] = if has_effect { &[] } else { &[name] };
        self.require(made.ignored == expected, cell, || {
            format!(
                "it {} the picture, ignored: {:?}",
                if has_effect { "changes" } else { "does not change" },
                made.ignored
            )
        });
        if has_effect {
            self.effective.insert(name.to_owned());
        }
        Some(has_effect)
    }

    /// One that the model takes, and that is not its usual one.
    async fn another_scheduler(&self) -> String {
        let capabilities = self.entry().await["capabilities"].clone();
        let usual = &capabilities["defaults"]["scheduler"];
        let mut listed = capabilities["schedulers"].as_array().into_iter().flatten();
        listed.find(|name| *name != usual).and_then(Value::as_str).unwrap_or("heun").to_owned()
    }

    async fn entry(&self) -> Value {
        get(self.sidecar, &format!("/v1/models/{}", self.installation.model)).await.json
    }

    /// A family's own value is no other value: asking for it is not in vain.
    async fn check_fixed(&mut self, cell: &str, template: &Template, base: &Request, plain: &Made) {
        let fixed = [
            ("cfg_scale", template.rules.fixed_cfg_scale.map(|scale| json!(scale))),
            ("steps", template.rules.fixed_steps.map(|steps| json!(steps))),
        ];
        for (name, value) in fixed.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            let cell = format!("{cell} with its own {name}");
            if let Some(made) = self.make(&cell, &base.with([(name, value)])).await {
                let is_same = made.pixels == plain.pixels && made.ignored.is_empty();
                self.require(is_same, &cell, || format!("ignored: {:?}", made.ignored));
            }
        }
    }

    /// Sends all parameters at once.
    async fn check_everything(&mut self, cell: &str, base: &Request, effects: &Effects) {
        let cell = format!("{cell} with everything");
        let sent = [
            ("negative_prompt", json!("dogs")),
            ("cfg_scale", json!(6.25)),
            ("strength", json!(0.5)),
            ("quality", json!("high")),
            ("steps", json!(2)),
            ("scheduler", json!(effects.scheduler)),
            ("size", json!(format!("{}x{}", HEIGHT * 2, WIDTH * 2))),
        ];
        let Some(made) = self.make(&cell, &base.with(sent.clone())).await else { return };
        let mut expected = effects.ignored.clone();
        if !expected.contains("steps") {
            // It would only scale them.
            expected.remove("quality");
        }
        let ignored: BTreeSet<_> = made.ignored.iter().cloned().collect();
        self.require(ignored == expected, &cell, || format!("ignored: {ignored:?}, not {expected:?}"));
        for (name, value) in sent.iter().filter(|(name, _)| *name != "quality") {
            let is_told = made.settings[*name] == *value;
            self.require(is_told != expected.contains(*name), &cell, || {
                format!("{name} {value} was sent, {} told", made.settings[*name])
            });
        }
    }

    async fn check_loras(&mut self, cell: &str, template: &Template, base: &Request, plain: &Made) {
        let cell = format!("{cell} with two LoRAs");
        let request = base.with([("loras", loras())]);
        if template.max_loras() == 0 {
            let answer = request.send(self.sidecar).await;
            self.require(is_refused(&answer, "loras"), &cell, || {
                format!("{} {}", answer.status, answer.json)
            });
            return;
        }
        let Some(made) = self.make(&cell, &request).await else { return };
        self.effective.insert("loras".to_owned());
        self.require(made.pixels != plain.pixels, &cell, || "they change nothing".to_owned());
        self.require(made.settings["loras"] == loras(), &cell, || format!("{} told", made.settings["loras"]));
        self.check_seen_loras(&cell);
    }

    fn check_seen_loras(&mut self, cell: &str) {
        let seen = E::last(self.fake).loras;
        let expected = LORAS.map(|(name, weight)| (name.to_owned(), weight));
        self.require(seen == expected, cell, || format!("the engine got {seen:?}"));
    }

    /// One picture and as many as it takes, without LoRAs and with two; then one more.
    async fn check_pictures(&mut self, task: Task, template: &Template, base: &Request) {
        let (_, most) = template.image_counts();
        let counts = BTreeSet::from([1, most]);
        for (count, with_loras) in counts.into_iter().flat_map(|count| [(count, false), (count, true)]) {
            if with_loras && template.max_loras() == 0 {
                continue;
            }
            let cell =
                format!("{} of {count} pictures{}", task.name(), if with_loras { " with LoRAs" } else { "" });
            let request = base.of_pictures(count);
            let request = if with_loras { request.with([("loras", loras())]) } else { request };
            let Some((places, made)) = self.make_held(&cell, &request).await else { continue };
            let expected: Vec<_> = (0..count).collect();
            self.require(places == expected, &cell, || format!("the engine got {places:?}"));
            self.require(made.settings["images"] == count, &cell, || {
                format!("{} told", made.settings["images"])
            });
            if with_loras {
                self.check_seen_loras(&cell);
            }
            self.check_size(task, template, &made);
        }
        let cell = format!("{} of {} pictures", task.name(), most + 1);
        let answer = base.of_pictures(most + 1).send(self.sidecar).await;
        let says = answer.message().contains(&format!("at most {most} image"));
        self.require(is_refused(&answer, "image") && says, &cell, || {
            format!("{} {}", answer.status, answer.json)
        });
    }

    /// Also gives the places of the pictures that the job's graph has, read while it runs: they are deleted after it.
    async fn make_held(&mut self, cell: &str, request: &Request) -> Option<(Vec<u8>, Made)> {
        let (places, made) = while_held(self.fake, request.make(self.sidecar)).await;
        match made {
            Ok(made) => Some((places, made)),
            Err(error) => {
                self.fault(cell, &error);
                None
            }
        }
    }

    /// A task that the family does not have.
    async fn check_refused(&mut self, task: Task) {
        let answer = self.request(task).send(self.sidecar).await;
        let edits = self.installation.set.templates.keys().any(|task| *task != Task::Generate);
        let param = if task != Task::Generate && edits { "mask" } else { "model" };
        self.require(is_refused(&answer, param), task.name(), || {
            format!("{} {}", answer.status, answer.json)
        });
    }

    /// The list of models says what the requests showed.
    async fn check_capabilities(&mut self) {
        let cell = "/v1/models";
        let list = get(self.sidecar, cell).await.json;
        let entries = list["data"].as_array().cloned().unwrap_or_default();
        let listed = entries.into_iter().find(|entry| entry["id"] == *self.installation.model);
        let Some(listed) = listed else { return self.fault(cell, &format!("it is not listed: {list}")) };
        let entry = self.entry().await;
        let (family, set) = (&self.installation.set.family, self.installation.set);
        self.require(listed["family"] == *family.base, cell, || format!("family {}", listed["family"]));
        self.require(entry["capabilities"] == listed["capabilities"], cell, || "two accounts".to_owned());
        let capabilities = &listed["capabilities"];
        let tasks: Vec<_> = set.templates.keys().map(|task| task.name()).collect();
        self.require(capabilities["tasks"] == json!(tasks), cell, || {
            format!("{} of {tasks:?}", capabilities["tasks"])
        });
        let edits = set.templates.iter().filter(|(task, _)| **task != Task::Generate);
        let most = edits.map(|(_, template)| template.image_counts().1).max().unwrap_or(0);
        self.require(capabilities["max_images"] == most, cell, || {
            format!("{} images", capabilities["max_images"])
        });
        let has_mask = set.templates.contains_key(&Task::Inpaint);
        self.require(capabilities["mask"] == has_mask, cell, || format!("mask {}", capabilities["mask"]));
        let parameters = capabilities["parameters"].as_array().cloned().unwrap_or_default();
        let told: BTreeSet<String> = parameters.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut effective = self.effective.clone();
        effective.remove("size");
        effective.insert("seed".to_owned());
        self.require(told == effective, cell, || format!("{told:?} told, {effective:?} have an effect"));
    }
}

fn loras() -> Value {
    LORAS.iter().map(|(name, weight)| json!({"name": name, "weight": weight})).collect()
}

fn is_refused(answer: &TestResponse, param: &str) -> bool {
    answer.status == 400 && answer.json["error"]["param"] == param
}

async fn get(sidecar: &Sidecar, path: &str) -> TestResponse {
    TestResponse::read(fakes::http().get(format!("{}{path}", sidecar.url)).send().await.unwrap()).await
}
