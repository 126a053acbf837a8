//! The files behind `-f`, joined to one text, and the way back from its lines.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// Endings of files that are read from a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Documents of several files in one text.
#[derive(Debug, Default)]
pub(super) struct Input {
    text: String,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    name: String,
    /// First line in the joined text, from 1.
    first_line: u64,
}

/// A place in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    /// From 1.
    pub(super) line: u64,
    /// The line itself.
    pub(super) text: &'a str,
}

impl Input {
    /// Reads all of them: files, folders (the `.yaml`, `.yml` and `.json` files in it, by name), `-` for standard input.
    ///
    /// # Errors
    /// Naming the file; a folder without any such file is one too.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut input = Self::default();
        for path in paths {
            if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::Error(format!("standard input: {error}")))?;
                input.add("(standard input)", &text);
            } else if path.is_dir() {
                for file in files_in(path)? {
                    input.add_file(&file)?;
                }
            } else {
                input.add_file(path)?;
            }
        }
        Ok(input)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Error(format!("{}: {error}", path.display())))?;
        self.add(&path.display().to_string(), &text);
        Ok(())
    }

    /// Adds the documents of one file.
    pub(super) fn add(&mut self, name: &str, text: &str) {
        // A separator of our own where the file does not begin with one: two in a row would be an empty document.
        if !self.text.is_empty() && !begins_with_separator(text) {
            self.text.push_str("---\n");
        }
        let first_line = self.text.lines().count() as u64 + 1;
        self.sources.push(Source { name: name.to_owned(), first_line });
        self.text.push_str(text);
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    /// All documents.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a line of the joined text came from.
    pub(super) fn place(&self, line: u64) -> Option<Place<'_>> {
        let source = self.sources.iter().rev().find(|source| source.first_line <= line)?;
        let text = self.text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
        Some(Place { file: &source.name, line: line - source.first_line + 1, text })
    }

    /// For messages: `a.yaml`, or `3 files`.
    pub(super) fn names(&self) -> String {
        match self.sources.as_slice() {
            [one] => one.name.clone(),
            several => {
                let mut text = String::new();
                let _ = write!(text, "{} files", several.len());
                text
            }
        }
    }
}

/// Whether the first line that is neither empty nor a comment separates documents.
fn begins_with_separator(text: &str) -> bool {
    text.lines()
        .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .is_some_and(|line| line.trim_end() == "---" || line.starts_with("--- "))
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::Error(format!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_file() && ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            files.push(path);
        }
    }
    if files.is_empty() {
        let folder = folder.display();
        return Err(Failure::Error(format!(
            "{folder}: no .yaml, .yml or .json file in this folder"
        )));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_joined_text_leads_back_to_its_file() {
        let mut input = Input::default();
        input.add("a.yaml", "kind: Mesh\nname: default");
        input.add("b.yaml", "# a comment\n---\nkind: Service\nname: api\n");
        input.add("c.json", "{\"kind\": \"Route\"}\n");
        let lines: Vec<&str> = input.text().lines().collect();
        let line_of = |text: &str| lines.iter().position(|line| *line == text).unwrap() as u64 + 1;
        let place = input.place(line_of("name: api")).unwrap();
        assert_eq!(place, Place { file: "b.yaml", line: 4, text: "name: api" });
        let place = input.place(line_of("{\"kind\": \"Route\"}")).unwrap();
        assert_eq!((place.file, place.line), ("c.json", 1));
        assert_eq!(input.place(line_of("name: default")).unwrap().file, "a.yaml");
        assert_eq!(input.place(99), None);
    }

    #[test]
    fn joining_files_makes_no_empty_documents() {
        let mut input = Input::default();
        input.add("a", "kind: A");
        input.add("b", "\n# c\n---\nkind: B\n");
        input.add("c", "kind: C\n");
        assert_eq!(input.text(), "kind: A\n\n# c\n---\nkind: B\n---\nkind: C\n");
    }

    #[test]
    fn a_folder_without_resources_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("README.md"), "no").unwrap();
        let error = Input::read(&[folder.path().to_owned()]).unwrap_err();
        assert!(error.message().contains(&folder.path().display().to_string()));
        std::fs::write(folder.path().join("b.yml"), "kind: B").unwrap();
        std::fs::write(folder.path().join("a.json"), "{}").unwrap();
        let input = Input::read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(input.text(), "{}\n---\nkind: B\n");
        assert_eq!(input.names(), "2 files");
    }
}
