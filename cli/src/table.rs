//! Tables for people, and for terminals: no lines, figures to the right.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table.
pub(crate) fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Aligns all columns but the first one, which says what each row is about.
pub(crate) fn align_figures(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
