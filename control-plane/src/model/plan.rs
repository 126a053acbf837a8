//! [`plan`]: what a set of documents would make of a configuration. All of them in one step, in any order.

use super::changes::{self, FieldChange};
use super::config::Change;
use super::problem::{Code, Problem};
use super::read::{Content, Document};
use super::references::{self, Broken};
use super::{Config, Kind, lint};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What would be done, if anything; consistent as a whole.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The configuration that results. Its revision is that of the base if nothing changes, else one more.
    pub config: Config,
    /// What changes; empty if nothing does.
    pub changes: Vec<Change>,
    /// What happens to the object of each document, in their order.
    pub objects: Vec<PlannedObject>,
    /// What works, but perhaps not as meant.
    pub warnings: Vec<Problem>,
}

/// What happens to one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedObject {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happens to it.
    pub action: PlannedAction,
    /// The fields that differ, of one that is updated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedAction {
    /// It did not exist.
    Created,
    /// It was another.
    Updated,
    /// It is as it was (or was not there already).
    Unchanged,
    /// It is gone.
    Deleted,
}

/// What `documents` make of `base`.
///
/// # Errors
/// With every problem, if the result would not be consistent. If all of them are [`Code::InUse`], nothing is wrong with
/// the documents themselves, only with their time.
pub fn plan(base: &Config, documents: &[Document]) -> Result<Plan, Vec<Problem>> {
    let mut by_name = HashMap::new();
    let mut problems = Vec::new();
    for document in documents {
        if let Some(first) = by_name.insert((document.kind(), document.name()), document) {
            problems.push(again(document, first));
        }
    }
    let mut changes = Vec::new();
    let mut objects = Vec::with_capacity(documents.len());
    for document in documents {
        let (kind, name) = (document.kind(), document.name());
        let mut fields = Vec::new();
        let action = match (&document.content, base.object(kind, name)) {
            (Content::Object(object), Some((current, _))) if current == *object => {
                PlannedAction::Unchanged
            }
            (Content::Object(object), current) => {
                changes.push(Change::Put(object.clone()));
                match current {
                    Some((current, _)) => {
                        fields = changes::of_objects(&current, object);
                        PlannedAction::Updated
                    }
                    None => PlannedAction::Created,
                }
            }
            (Content::Delete(..), Some(_)) => {
                changes.push(Change::Delete(kind, name.to_owned()));
                PlannedAction::Deleted
            }
            (Content::Delete(..), None) => PlannedAction::Unchanged,
        };
        objects.push(PlannedObject { kind, name: name.to_owned(), action, fields });
    }
    let config =
        if changes.is_empty() { base.clone() } else { base.with(&changes, base.revision() + 1) };
    problems.extend(attribute(references::broken(&config), &by_name));
    if !problems.is_empty() {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        return Err(problems);
    }
    let warnings = lint::warnings(&config, documents);
    Ok(Plan { config, changes, objects, warnings })
}

type ByName<'a> = HashMap<(Kind, &'a str), &'a Document>;

fn again(document: &Document, first: &Document) -> Problem {
    let line =
        first.position_of("name").map(|at| format!(", at line {}", at.line)).unwrap_or_default();
    Problem::new(Code::Duplicate, format!("the same object is in this input already{line}"))
        .of(document.kind(), document.name())
        .field("name")
        .at(document.position_of("name"))
}

/// A broken reference is the fault of the document that refers, if there is one; else of the one that took away what others
/// refer to, who are then all named in one problem.
fn attribute(broken: Vec<Broken>, documents: &ByName<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut used: BTreeMap<(Kind, String, &'static str), Vec<String>> = BTreeMap::new();
    for Broken { from, to, part, problem } in broken {
        let (kind, name) = (from.0, from.1.as_str());
        let document = documents.get(&(kind, name)).copied();
        match document.filter(|document| matches!(document.content, Content::Object(_))) {
            Some(document) => {
                let position = document.position_of(problem.field.as_deref().unwrap_or_default());
                problems.push(problem.of(kind, name).at(position));
            }
            None => {
                let field = problem.field.unwrap_or_default();
                let reason =
                    if part.is_empty() { String::new() } else { format!(": {}", problem.reason) };
                used.entry((to.0, to.1, part))
                    .or_default()
                    .push(format!("{kind} `{name}` ({field}{reason})"));
            }
        }
    }
    for ((kind, name, part), users) in used {
        let position = documents
            .get(&(kind, name.as_str()))
            .and_then(|document| document.position_of(if part.is_empty() { "name" } else { part }));
        let reason = format!("{kind} `{name}` is used by {}", some_of(&users));
        let mut problem = Problem::new(Code::InUse, reason).of(kind, &name).at(position);
        if !part.is_empty() {
            problem = problem.field(part);
        }
        problems.push(problem);
    }
    problems
}

/// A list that can still be read.
fn some_of(users: &[String]) -> String {
    const SHOWN: usize = 20;
    match users.split_at_checked(SHOWN) {
        Some((shown, rest)) if !rest.is_empty() => {
            format!("{} and {} more", shown.join(", "), rest.len())
        }
        _ => users.join(", "),
    }
}
