//! Lays words out in columns, without lines around them.

use comfy_table::{CellAlignment, Table, presets};

/// A table with these headings; columns from `numbers_from` on are aligned to the right.
pub(crate) fn of<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    numbers_from: usize,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
