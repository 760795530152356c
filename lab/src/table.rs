//! Plain-text tables for terminals: no lines, numbers aligned to the right.

use comfy_table::{CellAlignment, Table, presets};

/// Returns an empty table without lines.
pub(crate) fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Aligns all columns to the right except the first, which labels the rows.
pub(crate) fn align_figures(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
