//! The table of the comparison, in Markdown: a line for each figure, a column for each contestant, and one for the work
//! alone.

/// Whose figures are set against each other in the last column.
const OURS: &str = "gateway";
const THEIRS: &str = "fastapi";

/// Which of two figures is the better.
#[derive(Clone, Copy)]
pub(super) enum Better {
    Less,
    More,
}

pub(super) struct Table {
    columns: Vec<String>,
}

impl Table {
    /// Prints its head.
    pub(super) fn new(columns: Vec<String>) -> Self {
        crate::say(&format!("| | {} | baseline | {OURS} is better than {THEIRS} |", columns.join(" | ")));
        crate::say(&format!("|---|{}", "--:|".repeat(columns.len() + 2)));
        Self { columns }
    }

    /// Prints a row, with a dash for a missing figure. The figure of the bare work comes last.
    pub(super) fn line(&self, name: &str, better: Better, figures: &[Option<f64>]) {
        let all = (0..=self.columns.len()).map(|at| figures.get(at).copied().flatten());
        let cells: Vec<_> = all.map(|figure| figure.map_or_else(|| "–".to_owned(), rounded)).collect();
        let of = |name| self.columns.iter().position(|column| column == name).and_then(|at| figures[at]);
        let ratio = of(OURS).zip(of(THEIRS)).map(|(ours, theirs)| match better {
            Better::Less => theirs / ours,
            Better::More => ours / theirs,
        });
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{} x", rounded(ratio)));
        crate::say(&format!("| {name} | {} | {ratio} |", cells.join(" | ")));
    }
}

/// To three digits or so.
fn rounded(figure: f64) -> String {
    match figure.abs() {
        ..10.0 => format!("{figure:.2}"),
        ..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
