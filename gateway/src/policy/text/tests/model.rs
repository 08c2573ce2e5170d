//! Any request to any configuration, against the contract's sentence on routing, written down naively.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Some are names of classes, too.
const MODELS: [&str; 3] = ["a", "m", "n"];

/// A configuration and a request, as plain data.
#[derive(Debug, Clone)]
struct Case {
    /// In the order of the file: class, whether it can chat, default model, listed models.
    backends: Vec<(&'static str, bool, Option<&'static str>, Vec<&'static str>)>,
    legacy: Vec<(&'static str, &'static str)>,
    aliases: Vec<(&'static str, &'static str, &'static str)>,
    default: Option<&'static str>,
    header: Option<&'static str>,
    model: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    /// Class, model, reason.
    Sent(String, Option<String>, &'static str),
    UnknownBackend,
    Unsupported(String),
    NobodyCan,
}

fn any_case() -> impl Strategy<Value = Case> {
    let name = || prop::sample::select(&NAMES[..]);
    let some = || prop::option::of(name());
    let model = || prop::sample::select(&MODELS[..]);
    let backend = (any::<bool>(), some(), prop::collection::vec(model(), 0..3));
    let order = Just(NAMES.to_vec()).prop_shuffle();
    let backends = (order, prop::collection::vec(backend, 0..4)).prop_map(|(classes, backends)| {
        let named = classes.into_iter().zip(backends);
        named.map(|(class, (chats, default, models))| (class, chats, default, models)).collect()
    });
    let legacy = prop::collection::btree_map(name(), name(), 0..3).prop_map(|map| map.into_iter().collect());
    let alias = prop::collection::btree_map(model(), (name(), model()), 0..2);
    let aliases = alias
        .prop_map(|all| all.into_iter().map(|(name, (backend, model))| (name, backend, model)).collect());
    (backends, legacy, aliases, some(), prop::option::weighted(0.2, name()), prop::option::of(model()))
        .prop_map(|(backends, legacy, aliases, default, header, model)| Case {
            backends,
            legacy,
            aliases,
            default,
            header,
            model,
        })
}

impl Case {
    fn chats(&self, class: &str) -> bool {
        self.backends.iter().any(|(other, chats, ..)| *other == class && *chats)
    }

    /// A configured class, by this or an earlier name.
    fn class(&self, name: &str) -> Option<&'static str> {
        let is_class =
            |name: &str| self.backends.iter().find(|backend| backend.0 == name).map(|backend| backend.0);
        is_class(name).or_else(|| {
            let (_, class) = self.legacy.iter().find(|(legacy, _)| *legacy == name)?;
            is_class(class)
        })
    }

    /// Whether it is the name of a class, now or earlier.
    fn is_class_name(&self, name: &str) -> bool {
        self.class(name).is_some() || self.legacy.iter().any(|(legacy, _)| *legacy == name)
    }

    /// The only class that lists the model; of several, the only one that can chat.
    fn sole_lister(&self, model: &str) -> Option<&'static str> {
        let mut listers =
            self.backends.iter().filter(|backend| backend.3.contains(&model)).collect::<Vec<_>>();
        if listers.iter().any(|backend| backend.1) {
            listers.retain(|backend| backend.1);
        }
        if listers.len() == 1 { Some(listers[0].0) } else { None }
    }

    fn expected(&self) -> Answer {
        let alias = self.model.and_then(|model| self.aliases.iter().find(|alias| alias.0 == model));
        let (named, reason) = match (self.header, self.model, alias) {
            (Some(header), ..) => (Some(header), "header:x-backend"),
            (_, _, Some((_, backend, _))) => (Some(*backend), "alias"),
            (_, Some(model), _) if self.is_class_name(model) => (Some(model), "model"),
            (_, Some(model), _) if self.sole_lister(model).is_some() => (self.sole_lister(model), "model"),
            _ => (None, "default"),
        };
        let class = if let Some(name) = named {
            let Some(class) = self.class(name) else { return Answer::UnknownBackend };
            class
        } else {
            let configured = self.default.filter(|class| self.chats(class));
            let first = self.backends.iter().find(|backend| backend.1).map(|backend| backend.0);
            let Some(class) = configured.or(first) else { return Answer::NobodyCan };
            class
        };
        if !self.chats(class) {
            return Answer::Unsupported(class.to_owned());
        }
        let default = self.backends.iter().find(|backend| backend.0 == class).unwrap().2;
        let model = match (alias, self.model) {
            // An alias names a model of its own backend only.
            (Some((_, backend, model)), _) if self.class(backend) == Some(class) => Some(*model),
            (_, Some(model)) if !self.is_class_name(model) => Some(model),
            _ => default,
        };
        Answer::Sent(class.to_owned(), model.map(str::to_owned), reason)
    }

    fn actual(&self) -> Answer {
        let owned = |text: &&str| (*text).to_owned();
        let build = |(class, chats, default, _): &(&str, bool, Option<&str>, Vec<&str>)| {
            let capability = if *chats { Capability::Chat } else { Capability::Images };
            let mut built = (*backend(class, &[(capability, 1)])).clone();
            built.default_model = default.as_ref().map(owned);
            Arc::new(built)
        };
        let all: Vec<_> = self.backends.iter().map(build).collect();
        let models = |backend: &Arc<Backend>, ids: &[&str]| -> BackendModels {
            (backend.clone(), ids.iter().map(|id| Model::new(*id, 0, backend.class.as_str())).collect())
        };
        let lists: Vec<_> =
            all.iter().zip(&self.backends).map(|(built, case)| models(built, &case.3)).collect();
        let legacy_names = self.legacy.iter().map(|(name, class)| (owned(name), owned(class))).collect();
        let backends = Backends { all, legacy_names, mock: None };
        let alias = |(name, backend, model): &(&str, &str, &str)| {
            (owned(name), ModelAlias { backend: owned(backend), model: owned(model) })
        };
        let aliases = self.aliases.iter().map(alias).collect();
        let routing = RoutingConfig { aliases, default: self.default.as_ref().map(owned) };
        let query = RoutingQuery { capability: Capability::Chat, backend: self.header, model: self.model };
        match route_text(&backends, &routing, &lists, query) {
            Ok(routed) => Answer::Sent(
                routed.backend().class.clone(),
                routed.model().map(str::to_owned),
                routed.reason(),
            ),
            Err(RoutingError::UnknownBackend { .. }) => Answer::UnknownBackend,
            Err(RoutingError::UnsupportedCapability { class, .. }) => Answer::Unsupported(class),
            Err(RoutingError::NoCapableBackend(_)) => Answer::NobodyCan,
            Err(other) => panic!("{other:?} is of images"),
        }
    }
}

proptest! {
    #[test]
    fn any_request_goes_where_the_contract_says(case in any_case()) {
        prop_assert_eq!(case.actual(), case.expected());
    }
}
