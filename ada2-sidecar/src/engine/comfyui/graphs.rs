//! The built-in graphs: templates like a user's own, for each kind of models.

use std::sync::LazyLock;

use super::GRAPH_FORMAT;
use crate::{engine::read_graphs, images::graph_set::GraphCatalog};

static CATALOG: LazyLock<GraphCatalog> =
    LazyLock::new(|| read_graphs(GRAPH_FORMAT, include!(concat!(env!("OUT_DIR"), "/comfyui_graphs.rs"))));

pub(super) fn catalog() -> &'static GraphCatalog {
    &CATALOG
}
