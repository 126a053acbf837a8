//! Tables without lines, columns two spaces apart. What does not fit into 80 columns wraps in its column.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Color, ContentArrangement};

/// Columns of a table that is not wide.
const WIDTH: u16 = 80;

/// One cell: text, and what it means.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    color: Option<Color>,
}

impl Cell {
    /// Good news.
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self { text: text.into(), color: Some(Color::Green) }
    }

    /// Something under way, or to look at.
    pub(crate) fn attention(text: impl Into<String>) -> Self {
        Self { text: text.into(), color: Some(Color::Yellow) }
    }

    /// Bad news.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { text: text.into(), color: Some(Color::Red) }
    }

    /// A state's name in the colour of its meaning.
    pub(crate) fn state(state: &str) -> Self {
        match state {
            "ok" | "up" | "healthy" | "Accepted" | "created" => Self::good(state),
            "pending" | "Pending" | "Partial" | "draining" | "updated" => Self::attention(state),
            "REJECTED" | "Rejected" | "DOWN" | "ejected" | "EJECTED" | "unhealthy" | "deleted" => {
                Self::bad(state)
            }
            _ => Self::from(state),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), color: None }
    }
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// No rows yet.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, with a line break at its end; a table without rows is its header.
    pub(crate) fn render(&self, wide: bool, color: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        if wide {
            table.set_content_arrangement(ContentArrangement::Disabled);
        } else {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        }
        if color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(
            self.header
                .iter()
                .map(|name| comfy_table::Cell::new(name).add_attribute(Attribute::Bold)),
        );
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| {
                let text = if cell.text.is_empty() { "-" } else { &cell.text };
                let styled = comfy_table::Cell::new(text);
                match cell.color {
                    Some(color) => styled.fg(color),
                    None => styled,
                }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
