//! How commands print: tables for people (80 columns unless `-o wide`), JSON and YAML for programs.

mod table;
#[cfg(test)]
mod tests;
mod time;

use std::io::{ErrorKind, IsTerminal, Write};

use clap::{Args, ValueEnum};
use serde_json::Value;

pub(crate) use self::table::{Cell, Table};
pub(crate) use self::time::{age, left, seconds_since};
use crate::exit::{Failure, Outcome};

/// Options of every command that prints something.
#[derive(Debug, Clone, Args)]
pub(crate) struct OutputArgs {
    /// What to print
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Print no colours; so does a NO_COLOR that is not empty, or output that is no terminal
    #[arg(long)]
    pub(crate) no_color: bool,
}

/// What to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table of 80 columns
    Table,
    /// A table with everything there is
    Wide,
    /// JSON, one document
    Json,
    /// YAML, one document
    Yaml,
}

impl OutputArgs {
    /// Whether colours are wanted.
    pub(crate) fn color(&self) -> bool {
        !self.no_color
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::io::stdout().is_terminal()
    }

    /// Whether there is no need to keep within 80 columns.
    pub(crate) fn wide(&self) -> bool {
        self.output == Format::Wide
    }

    /// The value as JSON or YAML if that is wanted, else what `human` makes.
    pub(crate) fn render(
        &self,
        value: &Value,
        human: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        match self.output {
            Format::Table | Format::Wide => human(),
            Format::Json => Ok(format!("{value:#}\n")),
            Format::Yaml => to_yaml(value),
        }
    }

    /// Prints what [`OutputArgs::render`] makes.
    pub(crate) fn print(
        &self,
        value: &Value,
        human: impl FnOnce() -> Result<String, Failure>,
    ) -> Outcome {
        print(&self.render(value, human)?)
    }

    /// The table as text, with colours or without, at its width.
    pub(crate) fn table(&self, table: &Table) -> String {
        table.render(self.wide(), self.color())
    }
}

/// A value as one YAML document.
///
/// # Errors
/// When YAML cannot express it, which JSON values never make it say.
pub(crate) fn to_yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| Failure::Error(error.to_string()))
}

/// Writes to standard output. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// Any other that writing gives.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
