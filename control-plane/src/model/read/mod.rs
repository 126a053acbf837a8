//! Documents to typed objects, with every problem at once.
//!
//! Reading order: [`documents`] here; [`tree`], YAML and JSON with positions; [`fields`] and [`values`], how a mapping and a
//! single value are read; then one file a kind.

mod endpoint;
mod fields;
mod filter;
mod gateway;
mod mesh;
mod policy;
mod route;
mod service;
mod token;
pub(crate) mod tree;
mod values;

#[cfg(test)]
mod tests;

pub use token::{TokenRequest, token_request};
pub use values::check_name;

use self::fields::{At, Fields, Scope};
use self::tree::{Node, Value};
use super::problem::{Code, MOST, Position, Problem};
use super::{Kind, Labels, Object};
use std::sync::Arc;

/// One document that is valid in itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it asks for.
    pub content: Content,
    /// The text it was, if it was one.
    tree: Option<Arc<Node>>,
}

/// What a document asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// This object shall exist.
    Object(Object),
    /// The object with this kind and name shall not exist (`delete: true`).
    Delete(Kind, String),
}

impl Document {
    /// The kind it is about.
    pub fn kind(&self) -> Kind {
        match &self.content {
            Content::Object(object) => object.kind(),
            Content::Delete(kind, _) => *kind,
        }
    }

    /// The name it is about.
    pub fn name(&self) -> &str {
        match &self.content {
            Content::Object(object) => object.name(),
            Content::Delete(_, name) => name,
        }
    }

    /// Where in the text the value at `path` begins, or what it is absent from. `None` if there never was a text.
    pub fn position_of(&self, path: &str) -> Option<Position> {
        self.tree.as_ref().map(|tree| tree.position_of(path))
    }
}

/// A document that was never a text.
impl From<Content> for Document {
    fn from(content: Content) -> Self {
        Self { content, tree: None }
    }
}

/// Reads the one document that is about the object with this kind and name; what it does not say of the two is theirs.
///
/// # Errors
/// With every problem: also if there is no document, more than one, or one about something else.
pub fn document_about(text: &str, kind: Kind, name: &str) -> Result<Object, Vec<Problem>> {
    let (mut trees, mut problems) = tree::parse(text);
    let mut scope = Scope { expected: Some((kind, name.to_owned())), ..Scope::default() };
    let content = match (trees.pop(), trees.is_empty()) {
        (Some(tree), true) => document(&mut scope, &tree),
        (None, _) if !problems.is_empty() => None,
        _ => {
            problems.push(Problem::new(Code::InvalidValue, "exactly one document is expected"));
            None
        }
    };
    problems.append(&mut scope.problems);
    match content {
        Some(Content::Object(object)) if problems.is_empty() => Ok(object),
        Some(Content::Delete(..)) => {
            let reason = "`delete` belongs in what is applied; here, use the method DELETE";
            problems.push(Problem::new(Code::InvalidValue, reason).of(kind, name).field("delete"));
            Err(problems)
        }
        _ => Err(problems),
    }
}

/// Reads one object that was printed.
///
/// # Errors
/// With everything that is wrong with it, as one text.
pub fn object(text: &str) -> Result<Object, String> {
    let (mut documents, problems) = documents(text);
    match (documents.pop().map(|document| document.content), documents.is_empty()) {
        (Some(Content::Object(object)), true) if problems.is_empty() => Ok(object),
        _ => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Err(format!("not one object: {}", problems.join("; ")))
        }
    }
}

/// Reads a stream of YAML documents, or JSON (which is YAML): objects, lists of objects, or `{items: [...]}` as lists of
/// the API are. Gives what is valid in itself, and all problems (about [`MOST`], if there are more).
pub fn documents(text: &str) -> (Vec<Document>, Vec<Problem>) {
    let (trees, mut problems) = tree::parse(text);
    let mut documents = Vec::new();
    for tree in trees {
        for tree in unlisted(tree) {
            if problems.len() >= MOST {
                break;
            }
            let mut scope = Scope::default();
            let content = document(&mut scope, &tree);
            if scope.problems.is_empty() {
                let tree = Some(Arc::new(tree));
                documents.extend(content.map(|content| Document { content, tree }));
            }
            problems.append(&mut scope.problems);
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (documents, problems)
}

/// The objects of a document that is a list of them, or the document itself.
fn unlisted(tree: Node) -> Vec<Node> {
    match tree.value {
        Value::List(items) => items,
        Value::Map(mut entries) if matches!(entries.as_slice(), [only] if only.key == "items") => {
            match entries.pop().map(|entry| entry.node) {
                Some(Node { value: Value::List(items), .. }) => items,
                Some(other) => vec![other],
                None => Vec::new(),
            }
        }
        value => vec![Node { value, at: tree.at }],
    }
}

fn document(scope: &mut Scope, tree: &Node) -> Option<Content> {
    // Kind and name first: they are part of every problem, in whatever order the keys stand.
    let word = |key| match tree.get(key) {
        Some(Node { value: Value::Text(word), .. }) => Some(word.clone()),
        _ => None,
    };
    scope.kind = word("kind").filter(|kind| Kind::from_document(kind).is_some());
    scope.name = word("name");
    scope.mapping(At { node: tree, path: "" }, |fields| {
        let (kind, name) = match fields.scope.expected.clone() {
            None => (fields.required("kind", kind), fields.required("name", values::name)),
            Some((expected, name)) => {
                fields.optional("kind", |scope, at| -> Option<()> {
                    let found = kind(scope, at)?;
                    (found != expected).then(|| mismatch(scope, at, expected.as_str()))
                });
                fields.optional("name", |scope, at| {
                    let found = values::name(scope, at)?;
                    (found != name).then(|| mismatch(scope, at, &name))
                });
                if !fields.has("name")
                    && let Err(reason) = check_name(&name)
                {
                    let problem = Problem::new(Code::InvalidValue, reason);
                    fields.scope.problem(problem, "name", fields.at.node.at);
                }
                (Some(expected), Some(name))
            }
        };
        let delete = fields.optional("delete", values::boolean).unwrap_or(false);
        let labels = fields.optional("labels", values::labels).unwrap_or_default();
        // What the API adds to an object it answers with: read again, it means nothing.
        fields.optional("revision", |_, _| Some(()));
        fields.optional("status", |_, _| Some(()));
        if delete {
            fields.optional("spec", |_, _| Some(()));
            return Some(Content::Delete(kind?, name?));
        }
        let Some(kind) = kind else {
            // Without a kind nothing can be said about the spec.
            fields.optional("spec", |_, _| Some(()));
            return None;
        };
        let meta = Meta { name: name.unwrap_or_default(), labels };
        match kind {
            Kind::Mesh => match fields.has("spec") {
                true => fields.optional("spec", |scope, at| mesh::read(scope, at, meta)),
                false => fields.optional("spec", |_, _| None).or(Some(mesh::without_spec(meta))),
            }
            .map(|it| {
                if it.name != super::mesh::NAME {
                    wrong_mesh_name(fields);
                }
                Object::Mesh(Arc::new(it))
            }),
            Kind::Service => fields
                .required("spec", |scope, at| service::read(scope, at, meta))
                .map(|it| Object::Service(Arc::new(it))),
            Kind::Route => fields
                .required("spec", |scope, at| route::read(scope, at, meta))
                .map(|it| Object::Route(Arc::new(it))),
            Kind::Gateway => fields
                .required("spec", |scope, at| gateway::read(scope, at, meta))
                .map(|it| Object::Gateway(Arc::new(it))),
            Kind::Policy => fields
                .required("spec", |scope, at| policy::read(scope, at, meta))
                .map(|it| Object::Policy(Arc::new(it))),
            Kind::Endpoint => fields
                .required("spec", |scope, at| endpoint::read(scope, at, meta))
                .map(|it| Object::Endpoint(Arc::new(it))),
        }
        .map(Content::Object)
    })
}

/// The body of a request says something else than its path.
fn mismatch(scope: &mut Scope, at: At<'_>, expected: &str) {
    scope.invalid(at, format!("the path of the request says `{expected}`"));
}

fn wrong_mesh_name(fields: &mut Fields<'_, '_>) {
    fields.optional("name", |scope, at| -> Option<()> {
        let problem =
            Problem::new(Code::UnknownValue, "there is one Mesh, and its name is `default`")
                .choices("", [super::mesh::NAME]);
        scope.problem(problem, at.path, at.node.at);
        None
    });
}

/// What stands outside of `spec`.
struct Meta {
    name: String,
    labels: Labels,
}

fn kind(scope: &mut Scope, at: At<'_>) -> Option<Kind> {
    let text = values::text(scope, at)?;
    if let Some(kind) = Kind::from_document(&text) {
        return Some(kind);
    }
    let problem = Problem::new(Code::UnknownValue, format!("there is no kind `{text}`"))
        .choices(&text, Kind::ALL.iter().map(|kind| kind.as_str()));
    scope.problem(problem, at.path, at.node.at);
    None
}
