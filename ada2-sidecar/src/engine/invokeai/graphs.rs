//! The built-in graphs: templates like a user's own, for each kind of models.

use std::sync::LazyLock;

use super::GRAPH_FORMAT;
use crate::{engine::read_graphs, images::graph_set::GraphCatalog};

static CATALOG: LazyLock<GraphCatalog> =
    LazyLock::new(|| read_graphs(GRAPH_FORMAT, include!(concat!(env!("OUT_DIR"), "/invokeai_graphs.rs"))));

pub(super) fn catalog() -> &'static GraphCatalog {
    &CATALOG
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Task, template::Binding as B};

    #[test]
    fn all_files_are_read_and_every_graph_takes_what_its_task_needs() {
        let files: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/invokeai_graphs.rs"));
        let catalog = GraphCatalog::read(GRAPH_FORMAT, files)
            .unwrap_or_else(|errors| panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>()));
        for set in catalog.sets() {
            let name = &set.family.name;
            assert!(set.family.models.is_some() != !set.family.files.is_empty(), "{name}: models or files");
            for (task, template) in &set.templates {
                assert_eq!(template.check_task(*task), Ok(()), "{name} {task:?}");
                assert!(template.binds(B::Model), "{name} {task:?}");
                let takes_size = template.takes_size() || template.rules.size.is_some();
                assert!(takes_size, "{name} {task:?}: a client may always send a size");
                assert_eq!(template.image_counts().1 > 0, *task != Task::Generate, "{name} {task:?}");
                for (images, loras) in [(0, 0), (1, 1), (3, 2)] {
                    let edges = template.expand(images, loras);
                    assert!(edges.check_task(*task).is_ok() || images == 0, "{name} {task:?}");
                }
            }
        }
    }
}
