//! YAML (and so JSON) as a tree in which each value knows where it stands.
//!
//! The typed readers walk this tree, so that every problem has the exact path and position of the value it is about.

use crate::model::problem::{Code, MOST, Position, Problem};
use granit_parser::{BorrowedInput, Event, Options, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// A value, and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Position,
}

/// A value, as YAML's core schema resolves it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// A whole or fractional number, as it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping and its value. Keys are unique.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) node: Node,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
            }
            _ => None,
        }
    }

    /// The position of the value at `path` (`spec.rules[0].name`), or of the nearest one around it.
    pub(crate) fn position_of(&self, path: &str) -> Position {
        let mut node = self;
        for part in path.split(['.', '[']) {
            let next = match &node.value {
                Value::List(items) => {
                    part.trim_end_matches(']').parse().ok().and_then(|i: usize| items.get(i))
                }
                _ => node.get(part),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.at
    }

    /// What it is, in words that fit behind "is".
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null => "empty",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Takes the number of nodes it is made of from `budget`; false as soon as that is used up.
    fn fits(&self, budget: &mut usize) -> bool {
        let Some(rest) = budget.checked_sub(1) else { return false };
        *budget = rest;
        match &self.value {
            Value::List(items) => items.iter().all(|item| item.fits(budget)),
            Value::Map(entries) => entries.iter().all(|entry| entry.node.fits(budget)),
            _ => true,
        }
    }
}

/// Nodes that are kept for aliases and that aliases add, all together in a stream: a few lines of aliases of aliases would
/// fill any memory.
const ALIAS_BUDGET: usize = 100_000;

/// Values in a stream. The largest mesh has a fraction of it, and the smallest values take a multiple of their text.
const MOST_NODES: usize = 1_000_000;

/// Reads a stream of documents. A document with a problem is left out, those behind it are read all the same; an empty
/// document counts for nothing.
pub(crate) fn parse(text: &str) -> (Vec<Node>, Vec<Problem>) {
    parse_within(text, MOST_NODES)
}

fn parse_within(text: &str, most_nodes: usize) -> (Vec<Node>, Vec<Problem>) {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new();
    let mut parser = Parser::new_from_str_with_options(text, options);
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => {
                let at = Position { line: span.start.line(), column: span.start.col() + 1 };
                builder.event(event, at);
                if builder.nodes > most_nodes {
                    let reason = format!("more than {most_nodes} values in one input");
                    builder.problem(Code::Syntax, at, reason);
                    break;
                }
            }
            Some(Err(error)) => {
                builder.abandon();
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                builder.problem(Code::Syntax, at, error.info());
                if builder.problems.len() >= MOST || !resume(&mut parser) {
                    break;
                }
            }
        }
    }
    (builder.documents, builder.problems)
}

/// An anchor, or an alias of one, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Number of the anchor, the same at its definition and at its aliases.
    pub(crate) id: usize,
    /// Whether this is an alias.
    pub(crate) alias: bool,
    /// Where; of a definition, where the value begins.
    pub(crate) at: Position,
}

/// The anchors and aliases of a text that [`parse`] reads without a problem: its trees do not show them any more.
pub(crate) fn anchors(text: &str) -> Vec<Anchor> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut anchors = Vec::new();
    while let Some(Ok((event, span))) = parser.next_event() {
        let (id, alias) = match event {
            Event::Alias(id) => (id, true),
            Event::Scalar(_, _, id, _)
            | Event::SequenceStart(_, id, _)
            | Event::MappingStart(_, id, _) => (id, false),
            _ => continue,
        };
        if id != 0 {
            let at = Position { line: span.start.line(), column: span.start.col() + 1 };
            anchors.push(Anchor { id, alias, at });
        }
    }
    anchors
}

/// Goes on behind a document that is not YAML; whether there is more.
fn resume<'t, T: BorrowedInput<'t>>(parser: &mut Parser<'t, T>) -> bool {
    parser.proceed_next_document().unwrap_or(false)
}

/// Makes trees of events.
struct Builder {
    documents: Vec<Node>,
    problems: Vec<Problem>,
    /// What is open, outermost first.
    open: Vec<Open>,
    /// Finished nodes that have an anchor, in the current document.
    anchors: HashMap<usize, Node>,
    /// What is left of [`ALIAS_BUDGET`].
    alias_budget: usize,
    /// Values so far.
    nodes: usize,
    /// The current document has a problem that its tree does not show.
    spoiled: bool,
}

struct Open {
    node: Node,
    anchor: usize,
    /// Of a mapping: the key whose value is awaited.
    key: Option<(String, Position)>,
    /// Of a mapping: the keys so far.
    keys: HashSet<String>,
}

impl Open {
    fn new(value: Value, at: Position, anchor: usize) -> Self {
        Self { node: Node { value, at }, anchor, key: None, keys: HashSet::new() }
    }
}

impl Builder {
    fn new() -> Self {
        Self {
            documents: Vec::new(),
            problems: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            alias_budget: ALIAS_BUDGET,
            nodes: 0,
            spoiled: false,
        }
    }

    fn problem(&mut self, code: Code, at: Position, reason: impl Into<String>) {
        self.spoiled = true;
        if self.problems.len() < MOST {
            self.problems.push(Problem::new(code, reason).at(Some(at)));
        }
    }

    fn abandon(&mut self) {
        self.open.clear();
        self.anchors.clear();
    }

    fn event(&mut self, event: Event<'_>, at: Position) {
        match event {
            Event::DocumentStart(..) => {
                self.abandon();
                self.spoiled = false;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref(), at);
                self.finished(Node { value, at }, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag, at);
                self.open.push(Open::new(Value::List(Vec::new()), at, anchor));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag, at);
                self.open.push(Open::new(Value::Map(Vec::new()), at, anchor));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { node, anchor, .. }) = self.open.pop() {
                    self.finished(node, anchor);
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at),
            _ => {}
        }
    }

    fn refuse_tag(&mut self, tag: Option<Cow<'_, Tag>>, at: Position) {
        if let Some(tag) = tag {
            self.problem(
                Code::Syntax,
                at,
                format!("tags like `{}` have no meaning here", tag.original()),
            );
        }
    }

    fn alias(&mut self, anchor: usize, at: Position) {
        let Some(node) = self.anchors.get(&anchor) else {
            self.problem(Code::Syntax, at, "an alias of nothing, or inside of what it refers to");
            self.finished(Node { value: Value::Null, at }, 0);
            return;
        };
        let value =
            if node.fits(&mut self.alias_budget) { node.value.clone() } else { Value::Null };
        if self.alias_budget == 0 {
            self.problem(Code::Syntax, at, "aliases make this too large");
        }
        self.finished(Node { value, at }, 0);
    }

    /// Puts a finished node where it belongs: into what is open around it, or among the documents.
    fn finished(&mut self, node: Node, anchor: usize) {
        self.nodes += 1;
        if anchor != 0 {
            if node.fits(&mut self.alias_budget) {
                self.anchors.insert(anchor, node.clone());
            } else {
                self.problem(Code::Syntax, node.at, "anchors make this too large");
            }
        }
        let Some(parent) = self.open.last_mut() else {
            if !self.spoiled && node.value != Value::Null {
                self.documents.push(node);
            }
            return;
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, key_at))) => {
                if parent.keys.insert(key.clone()) {
                    entries.push(Entry { key, key_at, node });
                } else {
                    let reason = format!("the key `{key}` is there twice");
                    self.problem(Code::DuplicateKey, key_at, reason);
                }
            }
            (_, _) => match node.value {
                Value::Text(key) | Value::Number(key) => parent.key = Some((key, node.at)),
                Value::Bool(key) => parent.key = Some((key.to_string(), node.at)),
                _ => {
                    let reason = format!("a key is a text, this is {}", node.describe());
                    parent.key = Some((String::new(), node.at));
                    self.problem(Code::Syntax, node.at, reason);
                }
            },
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Position,
    ) -> Value {
        match tag {
            None if style == ScalarStyle::Plain => resolve(text),
            None => Value::Text(text.into_owned()),
            Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" => {
                Value::Text(text.into_owned())
            }
            Some(tag) => {
                self.refuse_tag(Some(Cow::Borrowed(tag)), at);
                Value::Text(text.into_owned())
            }
        }
    }
}

/// What a plain scalar is (YAML 1.2.2, section 10.3.2: the core schema).
fn resolve(text: Cow<'_, str>) -> Value {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        plain if is_number(plain) => Value::Number(text.into_owned()),
        _ => Value::Text(text.into_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits =
        |radix: u32, digits: &str| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(8, octal);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return digits(16, hexadecimal);
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Node {
        let (mut documents, problems) = parse(text);
        assert_eq!(problems, []);
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    fn only_problem(text: &str) -> (Code, usize, usize) {
        let (documents, problems) = parse(text);
        assert_eq!(documents, []);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        (problem.code, problem.line.unwrap(), problem.column.unwrap())
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let node =
            one("kind: Service\nspec:\n  ports:\n  - {port: 1, protocol: http}\n  - port: 2\n");
        let at = |path| {
            let position = node.position_of(path);
            (position.line, position.column)
        };
        assert_eq!(at("kind"), (1, 7));
        assert_eq!(at("spec.ports[0].protocol"), (4, 25));
        assert_eq!(at("spec.ports[1].port"), (5, 11));
        assert_eq!(at("spec.ports[1].protocol"), (5, 5), "what is absent: what it is absent from");
    }

    #[test]
    fn json_is_read_with_tabs_escapes_and_surrogate_pairs() {
        let node = one("{\n\t\"a\": \"\\ud83d\\ude00\\/\\n\",\n\t\"b\":[1,2.5e3,-1,true,null]\n}");
        assert_eq!(node.get("a").unwrap().value, Value::Text("😀/\n".to_owned()));
        let Value::List(items) = &node.get("b").unwrap().value else { panic!() };
        let kinds: Vec<_> = items.iter().map(Node::describe).collect();
        assert_eq!(kinds, ["a number", "a number", "a number", "true or false", "empty"]);
    }

    #[test]
    fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_texts() {
        for number in
            ["1", "-1", "+1", "0x1F", "0o17", "1.", ".5", "1e3", "-1.5E-3", ".inf", ".nan"]
        {
            assert_eq!(one(number).value, Value::Number(number.to_owned()));
        }
        for text in ["yes", "1s", "1.2.3.4", "inf", "nan", "e3", ".", "0xZ", "infinity", "1_000"] {
            assert_eq!(
                one(&format!("[{text}]")).value,
                one(&format!("[\"{text}\"]")).value,
                "{text}"
            );
        }
        assert_eq!(one("'1'").value, Value::Text("1".to_owned()));
        assert_eq!(one("!!str 1").value, Value::Text("1".to_owned()));
    }

    #[test]
    fn a_broken_document_hides_no_problem_of_the_others() {
        let (documents, problems) = parse("a: [1\n---\nb: 1\nb: 2\n---\nc: 1\n---\n---\n# none\n");
        assert_eq!(documents.len(), 1);
        assert!(documents[0].get("c").is_some());
        let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [Code::Syntax, Code::DuplicateKey]);
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_its_second_place() {
        assert_eq!(only_problem("a: 1\nb: {c: 1, d: 2, c: 3}\n"), (Code::DuplicateKey, 2, 17));
        assert_eq!(only_problem("{\"a\": 1, \"a\": 1}"), (Code::DuplicateKey, 1, 10));
    }

    #[test]
    fn aliases_are_followed_but_never_explode() {
        let node = one("a: &x {b: 1}\nc: *x\n");
        assert_eq!(node.get("c").unwrap().get("b").unwrap().value, Value::Number("1".to_owned()));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..20 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(is_refused(&bomb));
        assert_eq!(only_problem("a: &x [*x]\n").0, Code::Syntax);
        let nested = (0..200).map(|i| format!("&a{i} [")).collect::<String>();
        let items = "x,".repeat(10_000);
        assert!(is_refused(&format!("{nested}{items}{}", "]".repeat(200))));
    }

    fn is_refused(text: &str) -> bool {
        let (documents, problems) = parse(text);
        documents.is_empty()
            && problems.iter().all(|it| it.code == Code::Syntax)
            && !problems.is_empty()
    }

    #[test]
    fn an_input_of_very_many_values_or_problems_is_given_up_early() {
        let (documents, problems) = parse_within(&"- 1\n".repeat(1100), 1000);
        assert_eq!((documents.len(), problems.len()), (0, 1));
        assert_eq!(problems[0].line, Some(1001), "{problems:?}");
        let broken = "[\n---\n".repeat(5000);
        assert_eq!(parse(&broken).1.len(), MOST);
        let twice = format!("{{{}}}", "a: 1, ".repeat(5000));
        assert_eq!(parse(&twice).1.len(), MOST);
    }

    #[test]
    fn deep_nesting_is_a_problem_and_no_overflow() {
        for (open, times) in [("[", 100_000), ("{a: ", 50_000), ("- ", 50_000), ("? ", 50_000)] {
            let (documents, problems) = parse(&open.repeat(times));
            assert!(documents.is_empty() && !problems.is_empty(), "{open}");
        }
    }

    #[test]
    fn tags_and_keys_that_are_no_texts_are_refused() {
        assert_eq!(only_problem("a: !secret x").0, Code::Syntax);
        assert_eq!(only_problem("? [1, 2]\n: x").0, Code::Syntax);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s)[ -~\n\t]{0,200}|.{0,100}") {
            parse(&text);
        }

        #[test]
        fn no_text_of_yaml_signs_makes_the_parser_panic(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "a", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "---\n",
                    "...\n", "? ", "| ", "> ", "'", "\"", "#", "!x ", "%", "\t", "\\", "~", "1",
                ]),
                0..60,
            ),
        ) {
            parse(&parts.concat());
        }
    }
}
