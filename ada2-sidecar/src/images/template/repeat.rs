//! Parts of a graph that exist once for each source image or LoRA. The graph contains them once; here they are copied, or
//! removed where there is none.

use std::collections::BTreeMap;

use super::{
    Binding, GraphEdge, MAX_IMAGES, MAX_LORAS, NodeInput, Template, TemplateError,
    binding_file::RepeatDeclaration,
};

/// What a part of a graph is repeated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepeatKind {
    Images,
    Loras,
}

impl RepeatKind {
    /// Its key in a binding file.
    const fn key(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Loras => "loras",
        }
    }

    /// What each copy has one of.
    const fn binding(self) -> Binding {
        match self {
            Self::Images => Binding::Image(1),
            Self::Loras => Binding::Lora(1),
        }
    }

    /// The most that a request has.
    const fn most(self) -> u8 {
        match self {
            Self::Images => MAX_IMAGES,
            Self::Loras => MAX_LORAS,
        }
    }
}

/// A part of a graph that exists several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repeat {
    /// The nodes of one copy.
    nodes: Vec<String>,
    /// Inputs that take an output of the copy before, by name or number; what the first copy's one feeds outside is fed by
    /// the last one's.
    chain: BTreeMap<NodeInput, String>,
    /// Inputs outside that are numbered.
    inputs: Vec<NumberedInput>,
    /// The most copies.
    pub(super) max: u8,
}

/// An input with a number in its name, such as `images.image_{1..16}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NumberedInput {
    node: String,
    prefix: String,
    suffix: String,
    first: u32,
}

impl NumberedInput {
    /// The input of one copy, counted from 1.
    fn of_copy(&self, copy: u8) -> NodeInput {
        let number = self.first.saturating_add(u32::from(copy.saturating_sub(1)));
        NodeInput { node: self.node.clone(), field: format!("{}{number}{}", self.prefix, self.suffix) }
    }

    /// Reads `node.input_{first..last}`, and returns how many inputs that are.
    fn parse(text: &str) -> Option<(Self, u32)> {
        let (head, rest) = text.split_once('{')?;
        let (range, suffix) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let (node, prefix) = head.split_once('.').filter(|(node, _)| !node.is_empty())?;
        let input =
            Self { node: node.to_owned(), prefix: prefix.to_owned(), suffix: suffix.to_owned(), first };
        Some((input, last.checked_sub(first)?.saturating_add(1)))
    }
}

impl Repeat {
    /// Reads a declaration. The bindings of the template are known.
    pub(super) fn read(
        kind: RepeatKind,
        declared: &RepeatDeclaration,
        template: &Template,
    ) -> Result<Self, Vec<TemplateError>> {
        let (nodes, mut faults) = (&declared.nodes, Vec::new());
        let missing = nodes.iter().filter(|node| template.node(node).is_none());
        faults.extend(missing.map(|node| format!("the graph has no node {node:?}")));
        let chain = read_chain(declared, &mut faults);
        let (inputs, shortest) = read_inputs(declared, template, &mut faults);
        if chain.is_empty() && inputs.is_empty() {
            faults.push("neither chain nor inputs say where a further copy is used".to_owned());
        }
        let binding = kind.binding();
        if !template.inputs_bound_to(binding).iter().any(|input| nodes.contains(&input.node)) {
            faults.push(format!("none of its nodes is bound to {binding}: all copies would be the same"));
        }
        let max = [declared.max, shortest].into_iter().flatten().min().unwrap_or(0);
        if max == 0 {
            faults.push("max is missing: the most copies".to_owned());
        } else if max > kind.most() {
            faults.push(format!("max: expected at most {}, as many as a request has", kind.most()));
        }
        let copies = nodes.iter().flat_map(|node| (2..=max).map(move |number| copy_name(node, number)));
        let taken = copies.filter(|copy| template.node(copy).is_some());
        faults.extend(taken.map(|copy| format!("a copy has the name of the node {copy:?}: give it another")));
        if faults.is_empty() {
            Ok(Self { nodes: nodes.clone(), chain, inputs, max })
        } else {
            let key = kind.key();
            Err(faults.into_iter().map(|fault| TemplateError(format!("repeat.{key}: {fault}"))).collect())
        }
    }

    /// What is left of it after a task has dropped the nodes that it does not need; None: nothing that could be copied.
    pub(super) fn within(&self, template: &Template) -> Option<Self> {
        let exists = |node: &str| template.node(node).is_some();
        let chain = self.chain.iter().filter(|(input, _)| exists(&input.node));
        let left = Self {
            nodes: self.nodes.iter().filter(|node| exists(node)).cloned().collect(),
            chain: chain.map(|(input, output)| (input.clone(), output.clone())).collect(),
            inputs: self.inputs.iter().filter(|input| exists(&input.node)).cloned().collect(),
            max: self.max,
        };
        let is_used = !(left.chain.is_empty() && left.inputs.is_empty());
        Some(left).filter(|left| is_used && !left.nodes.is_empty())
    }

    /// Makes the graph have this many copies.
    pub(super) fn apply(&self, template: &mut Template, count: u8) {
        if count == 0 {
            self.remove(template);
        } else {
            self.copy(template, count);
        }
        template.edges = template.format.edges(&template.graph);
    }

    fn contains(&self, node: &str) -> bool {
        self.nodes.iter().any(|own| own == node)
    }

    fn copy(&self, template: &mut Template, count: u8) {
        let Template { format, graph, edges, bindings, .. } = template;
        let format = *format;
        for number in 2..=count {
            let names = CopyNames { repeat: self, number };
            for node in &self.nodes {
                format.copy_node(graph, node, &names.of(node));
            }
            let is_copied = |edge: &&GraphEdge| {
                self.contains(&edge.target.node) && !self.chain.contains_key(&edge.target)
            };
            for edge in edges.iter().filter(is_copied) {
                format.connect(graph, &names.edge(edge));
            }
            let before = CopyNames { repeat: self, number: number - 1 };
            for (input, output) in &self.chain {
                let target = NodeInput { node: names.of(&input.node), field: input.field.clone() };
                let source = before.of(&input.node);
                format.connect(graph, &GraphEdge { source, output: output.clone(), target });
            }
            for input in &self.inputs {
                let first = input.of_copy(1);
                for edge in edges.iter().filter(|edge| edge.target == first) {
                    format.connect(graph, &GraphEdge { target: input.of_copy(number), ..names.edge(edge) });
                }
            }
            rebind(bindings, &names);
        }
        let last = CopyNames { repeat: self, number: count };
        for edge in edges.iter().filter(|edge| self.feeds_outside(edge)) {
            let source = last.of(&edge.source);
            format.reconnect(graph, edge, &GraphEdge { source, ..edge.clone() });
        }
    }

    /// Whether an edge leads from a chained output to a node that is not copied.
    fn feeds_outside(&self, edge: &GraphEdge) -> bool {
        !self.contains(&edge.target.node) && self.chained_input(edge).is_some()
    }

    /// The chained input of the node and output that an edge comes from.
    fn chained_input(&self, edge: &GraphEdge) -> Option<&NodeInput> {
        let mut chain = self.chain.iter();
        chain
            .find(|(input, output)| input.node == edge.source && **output == edge.output)
            .map(|(input, _)| input)
    }

    fn remove(&self, template: &mut Template) {
        let Template { format, graph, edges, bindings, .. } = template;
        for edge in
            edges.iter().filter(|edge| self.contains(&edge.source) && !self.contains(&edge.target.node))
        {
            match self.origin(edges, edge) {
                Some((source, output)) => {
                    format.reconnect(graph, edge, &GraphEdge { source, output, target: edge.target.clone() });
                }
                None => format.disconnect(graph, edge),
            }
        }
        for node in &self.nodes {
            format.remove_node(graph, node);
        }
        for inputs in bindings.values_mut() {
            inputs.retain(|input| !self.contains(&input.node));
        }
        bindings.retain(|_, inputs| !inputs.is_empty());
    }

    /// Edges by which nodes outside still read the first copy, so that it alone counts.
    #[cfg(test)]
    pub(super) fn edges_past_copies<'a>(
        &'a self,
        edges: &'a [GraphEdge],
    ) -> impl Iterator<Item = &'a GraphEdge> {
        let is_second = |node: &str| self.nodes.iter().any(|own| copy_name(own, 2) == node);
        edges.iter().filter(move |edge| {
            let GraphEdge { source, target, .. } = edge;
            self.contains(source) && !self.contains(&target.node) && !is_second(&target.node)
        })
    }

    /// What feeds the chain that an edge comes from.
    fn origin(&self, edges: &[GraphEdge], edge: &GraphEdge) -> Option<(String, String)> {
        let mut edge = edge;
        // Chained nodes may feed each other.
        for _ in 0..=self.nodes.len() {
            let input = self.chained_input(edge)?;
            edge = edges.iter().find(|edge| edge.target == *input)?;
            if !self.contains(&edge.source) {
                return Some((edge.source.clone(), edge.output.clone()));
            }
        }
        None
    }
}

fn read_chain(declared: &RepeatDeclaration, faults: &mut Vec<String>) -> BTreeMap<NodeInput, String> {
    let mut chain = BTreeMap::new();
    for (input, output) in &declared.chain {
        match NodeInput::parse(input).filter(|input| declared.nodes.contains(&input.node)) {
            Some(input) => drop(chain.insert(input, output.clone())),
            None => faults.push(format!("chain: {input:?} is not an input of one of its nodes")),
        }
    }
    chain
}

/// The numbered inputs, and how many copies all of them have room for.
fn read_inputs(
    declared: &RepeatDeclaration,
    template: &Template,
    faults: &mut Vec<String>,
) -> (Vec<NumberedInput>, Option<u8>) {
    let (mut inputs, mut lengths) = (Vec::new(), Vec::new());
    for text in &declared.inputs {
        match NumberedInput::parse(text) {
            Some((input, length)) if template.incoming_edge(&input.of_copy(1)).is_some() => {
                inputs.push(input);
                lengths.push(length);
            }
            Some((input, _)) => faults.push(format!("inputs: nothing feeds {}", input.of_copy(1))),
            None => faults.push(format!("inputs: {text:?} is not node.input_{{FIRST..LAST}}")),
        }
    }
    let shortest = lengths.into_iter().min().map(|length| u8::try_from(length).unwrap_or(u8::MAX));
    (inputs, shortest)
}

fn copy_name(node: &str, number: u8) -> String {
    format!("{node}__{number}")
}

/// The names of the nodes of one copy.
struct CopyNames<'a> {
    repeat: &'a Repeat,
    number: u8,
}

impl CopyNames<'_> {
    /// The first copy has the names of the graph.
    fn of(&self, node: &str) -> String {
        if self.number == 1 || !self.repeat.contains(node) {
            node.to_owned()
        } else {
            copy_name(node, self.number)
        }
    }

    fn edge(&self, edge: &GraphEdge) -> GraphEdge {
        let target = NodeInput { node: self.of(&edge.target.node), field: edge.target.field.clone() };
        GraphEdge { source: self.of(&edge.source), output: edge.output.clone(), target }
    }
}

/// What is bound in the first copy is bound in this one: to its own image or LoRA, or to the same value.
fn rebind(bindings: &mut BTreeMap<Binding, Vec<NodeInput>>, names: &CopyNames<'_>) {
    let of_first: Vec<_> = bindings
        .iter()
        .filter(|(binding, _)| binding.with_number(1) == **binding)
        .flat_map(|(binding, inputs)| inputs.iter().map(move |input| (*binding, input.clone())))
        .filter(|(_, input)| names.repeat.contains(&input.node))
        .collect();
    for (binding, input) in of_first {
        let copy = NodeInput { node: names.of(&input.node), field: input.field };
        bindings.entry(binding.with_number(names.number)).or_default().push(copy);
    }
}

#[cfg(test)]
mod tests;
