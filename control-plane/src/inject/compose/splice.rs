//! Pieces put into the text of a file. What does not change stays as it is written: order, comments, anchors, quotes.
//!
//! The text is cut at keys: of the file, of `services`, and of each service. A cut goes above the comment lines that stand
//! directly above a key. What cannot be cut so (a service in braces, one that is inherited) is written anew; and if with it an
//! anchor goes that others refer to, so are those.

use super::emit::{Copy, Piece, Pieces};
use super::project::{Project, entries};
use crate::inject::yaml::{Content, Field, Lines, Yaml, field, write_field, write_fields};
use crate::model::read::tree::{Entry, Node, Value};
use std::collections::HashSet;
use std::ops::Range;

const OVERRIDE_HEADER: &str = "\
# Made by `outrigger inject compose --override`: give it to compose behind the file that it was made from,
# as in `docker compose -f compose.yaml -f compose.outrigger.yaml up`. Change that file and make this one again.
";

/// The file with the pieces in it.
pub(super) fn whole(project: &Project<'_>, pieces: &Pieces) -> String {
    let lines = &project.lines;
    let mut cutter = Cutter { project, anew: HashSet::new(), sections: HashSet::new() };
    let Some(sections) = cut(lines, &project.tree, 1, lines.count() + 1, 0) else {
        return from_scratch(project, pieces);
    };
    cutter.settle(pieces, &sections);
    let mut out = lines.text(1, sections.first().map_or(1, |it| it.lines.start));
    let mut volumes = Some(&pieces.volumes).filter(|it| !it.is_empty());
    let mut networks = Some(&pieces.networks).filter(|it| !it.is_empty());
    for section in &sections {
        match section.entry.key.as_str() {
            "services" => cutter.services(&mut out, pieces, section),
            "volumes" => {
                cutter.extended(&mut out, section, volumes.take().map_or(&[], Vec::as_slice))
            }
            "networks" => {
                cutter.extended(&mut out, section, networks.take().map_or(&[], Vec::as_slice))
            }
            _ => cutter.extended(&mut out, section, &[]),
        }
    }
    for (key, fields) in [("volumes", volumes), ("networks", networks)] {
        if let Some(fields) = fields {
            out.push('\n');
            write_field(&mut out, &field(key, Content::Map(fields.clone()).into()), 0);
        }
    }
    out.push('\n');
    out
}

/// Only what is added and changed. Whether a key is taken away, which old versions of compose cannot.
pub(super) fn overriding(pieces: &Pieces) -> (String, bool) {
    let mut resets = false;
    let mut services = Vec::new();
    for copy in pieces.services.iter().flat_map(|piece| &piece.copies) {
        if copy.changes() {
            let mut fields = copy.with.clone();
            for key in copy
                .without
                .iter()
                .filter(|key| !fields.iter().any(|it| it.key == **key))
                .cloned()
                .collect::<Vec<_>>()
            {
                fields.push(field(&key, Content::Plain("!reset null".to_owned()).into()));
                resets = true;
            }
            services.push(field(&copy.name, Content::Map(fields).into()));
        }
        services.extend(copy.beside.iter().cloned());
    }
    services.extend(pieces.added.iter().cloned());
    let mut out = OVERRIDE_HEADER.to_owned();
    for (key, fields) in [
        ("services", services),
        ("volumes", pieces.volumes.clone()),
        ("networks", pieces.networks.clone()),
    ] {
        if !fields.is_empty() {
            write_field(&mut out, &field(key, Content::Map(fields).into()), 0);
        }
    }
    (out, resets)
}

/// A key with its value, and the lines that they take.
struct Part<'a> {
    entry: &'a Entry,
    lines: Range<usize>,
}

/// Cuts a block mapping at its keys; `None` if it is none. `from` is the first line that it may take, `end` the line behind
/// it.
fn cut<'a>(
    lines: &Lines<'_>,
    node: &'a Node,
    from: usize,
    end: usize,
    column: usize,
) -> Option<Vec<Part<'a>>> {
    let entries = entries(node);
    let first = entries.first()?;
    let indent = first.key_at.column;
    if matches!(lines.at(node.at), Some('{' | '*')) || indent <= column {
        return None;
    }
    let mut parts: Vec<Part<'a>> = Vec::with_capacity(entries.len());
    let mut floor = from;
    for entry in entries {
        let at = entry.key_at;
        let before: String = lines.line(at.line).chars().take(at.column - 1).collect();
        if at.column != indent || at.line < floor || at.line >= end || !before.trim().is_empty() {
            return None;
        }
        let mut start = at.line;
        while start > floor && is_comment(lines.line(start - 1), indent - 1) {
            start -= 1;
        }
        if let Some(last) = parts.last_mut() {
            last.lines.end = start;
        }
        parts.push(Part { entry, lines: start..end });
        floor = at.line + 1;
    }
    Some(parts)
}

/// A comment that is not further in than `indent`.
fn is_comment(line: &str, indent: usize) -> bool {
    let text = line.trim_start();
    text.starts_with('#') && line.chars().count() - text.chars().count() <= indent
}

struct Cutter<'a> {
    project: &'a Project<'a>,
    /// Services, by index, that are written anew.
    anew: HashSet<usize>,
    /// Sections of the file, by name, that are written anew.
    sections: HashSet<String>,
}

impl Cutter<'_> {
    /// Finds out what has to be written anew, until nothing is left that refers to an anchor which is gone.
    fn settle(&mut self, pieces: &Pieces, sections: &[Part<'_>]) {
        let Some(services) = sections.iter().find(|it| it.entry.key == "services") else { return };
        let parts = self.cut_services(services);
        for (position, piece) in pieces.services.iter().enumerate() {
            let part = parts.as_ref().and_then(|parts| parts.get(position));
            let cuttable = part.is_some_and(|part| self.keeps_its_lines(piece, part));
            if !cuttable {
                self.anew.insert(position);
            }
        }
        loop {
            let (kept, gone) = self.ranges(pieces, sections, parts.as_deref());
            let within = |ranges: &Ranges, line: usize| {
                ranges.iter().find(|(_, range)| range.contains(&line)).map(|(unit, _)| unit.clone())
            };
            let anchors = &self.project.anchors;
            let lost: HashSet<usize> = anchors
                .iter()
                .filter(|it| !it.alias && within(&gone, it.at.line).is_some())
                .map(|it| it.id)
                .collect();
            let broken: Vec<Unit> = anchors
                .iter()
                .filter(|it| it.alias && lost.contains(&it.id))
                .filter_map(|it| within(&kept, it.at.line))
                .collect();
            if broken.is_empty() {
                break;
            }
            for unit in broken {
                match unit {
                    Unit::Service(index) => self.anew.insert(index),
                    Unit::Section(name) => self.sections.insert(name),
                };
            }
        }
    }

    /// Lines that are taken over, and lines that are not, each with what it belongs to.
    fn ranges(
        &self,
        pieces: &Pieces,
        sections: &[Part<'_>],
        parts: Option<&[Part<'_>]>,
    ) -> (Ranges, Ranges) {
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for section in sections.iter().filter(|it| it.entry.key != "services") {
            let unit = Unit::Section(section.entry.key.clone());
            let anew = self.sections.contains(&section.entry.key);
            if anew { &mut gone } else { &mut kept }.push((unit, section.lines.clone()));
        }
        for (position, piece) in pieces.services.iter().enumerate() {
            let Some(part) = parts.and_then(|parts| parts.get(position)) else { continue };
            let unit = Unit::Service(position);
            let changed = piece.copies.iter().any(Copy::changes);
            if self.anew.contains(&position) {
                gone.push((unit, part.lines.clone()));
            } else if !changed {
                kept.push((unit, part.lines.clone()));
            } else {
                for field in self.cut_service(part).into_iter().flatten() {
                    let touched = piece.copies.iter().any(|copy| copy.touches(&field.entry.key));
                    if touched { &mut gone } else { &mut kept }.push((unit.clone(), field.lines));
                }
            }
        }
        if parts.is_none()
            && let Some(services) = sections.iter().find(|it| it.entry.key == "services")
        {
            gone.push((Unit::Section("services".to_owned()), services.lines.clone()));
        }
        (kept, gone)
    }

    fn cut_services<'a>(&self, section: &Part<'a>) -> Option<Vec<Part<'a>>> {
        let Part { entry, lines } = section;
        cut(&self.project.lines, &entry.node, entry.key_at.line + 1, lines.end, entry.key_at.column)
    }

    fn cut_service<'a>(&self, part: &Part<'a>) -> Option<Vec<Part<'a>>> {
        let Part { entry, lines } = part;
        cut(&self.project.lines, &entry.node, entry.key_at.line + 1, lines.end, entry.key_at.column)
    }

    /// Whether what a service keeps can be taken over line by line.
    fn keeps_its_lines(&self, piece: &Piece, part: &Part<'_>) -> bool {
        let service = &self.project.services[piece.index];
        let changed = piece.copies.iter().any(Copy::changes);
        if piece.alone || (changed && service.extended) {
            return false;
        }
        if !changed {
            return true;
        }
        let Some(fields) = self.cut_service(part) else { return false };
        // An anchor or a tag on the service itself would be one of something else.
        let header = self.project.lines.line(part.entry.key_at.line);
        let header = header.split('#').next().unwrap_or_default();
        if header.contains(['&', '!']) {
            return false;
        }
        let text = self.project.lines.text(part.lines.start, part.lines.end);
        let defines = |range: &Range<usize>| {
            self.project.anchors.iter().any(|it| !it.alias && range.contains(&it.at.line))
        };
        if text.contains("|+")
            || text.contains(">+")
            || (piece.copies.len() > 1 && defines(&part.lines))
        {
            return false;
        }
        // What is merged in cannot be taken away again.
        let direct: HashSet<&str> = fields.iter().map(|it| it.entry.key.as_str()).collect();
        let merged = service.yaml.fields().iter().filter(|it| !direct.contains(it.key.as_str()));
        !merged.into_iter().any(|it| piece.copies.iter().any(|copy| copy.touches(&it.key)))
    }

    /// The section `services`.
    fn services(&self, out: &mut String, pieces: &Pieces, section: &Part<'_>) {
        let lines = &self.project.lines;
        let parts = self.cut_services(section);
        let indent = match parts.as_ref().and_then(|parts| parts.first()) {
            Some(first) => {
                out.push_str(&lines.text(section.lines.start, first.lines.start));
                first.entry.key_at.column - 1
            }
            None => {
                out.push_str(&lines.text(section.lines.start, section.entry.key_at.line));
                out.push_str("services:\n");
                2
            }
        };
        for (position, piece) in pieces.services.iter().enumerate() {
            let part = parts.as_ref().and_then(|parts| parts.get(position));
            let mut tail = String::new();
            for (number, copy) in piece.copies.iter().enumerate() {
                match part.filter(|_| !self.anew.contains(&position)) {
                    Some(part) => tail = self.by_line(out, part, copy, number, indent),
                    None => {
                        if let Some(part) = part.filter(|_| number == 0) {
                            out.push_str(&lines.text(part.lines.start, part.entry.key_at.line));
                        }
                        self.anew(out, piece, copy, indent);
                    }
                }
                for added in &copy.beside {
                    write_field(out, added, indent);
                }
            }
            out.push_str(&tail);
        }
        for added in &pieces.added {
            write_field(out, added, indent);
        }
        // The space between sections was behind the last service.
        if parts.is_none() {
            out.push('\n');
        }
    }

    /// A service whose lines are taken over; gives what stood behind it: empty lines, comments of what follows.
    fn by_line(
        &self,
        out: &mut String,
        part: &Part<'_>,
        copy: &Copy,
        number: usize,
        indent: usize,
    ) -> String {
        let lines = &self.project.lines;
        if !copy.changes() {
            out.push_str(&lines.text(part.lines.start, part.lines.end));
            return String::new();
        }
        let fields = self.cut_service(part).unwrap_or_default();
        let first = fields.first().map_or(part.lines.end, |it| it.lines.start);
        if number == 0 {
            out.push_str(&lines.text(part.lines.start, part.entry.key_at.line));
        }
        if copy.name == part.entry.key {
            out.push_str(&lines.text(part.entry.key_at.line, first));
        } else {
            write_field(out, &field(&copy.name, Content::Plain(String::new()).into()), indent);
            let end = out.trim_end_matches([' ', '\n']).len();
            out.truncate(end);
            out.push('\n');
        }
        let inner = fields.first().map_or(indent + 2, |it| it.entry.key_at.column - 1);
        let mut text = String::new();
        let mut tail = String::new();
        for field in &fields {
            let (kept, behind) = split_tail(&lines.text(field.lines.start, field.lines.end), inner);
            text.push_str(&tail);
            tail = behind;
            if !copy.touches(&field.entry.key) {
                text.push_str(&kept);
            }
        }
        out.push_str(&text);
        write_fields(out, &copy.with, inner);
        tail
    }

    /// A service written from what it is.
    fn anew(&self, out: &mut String, piece: &Piece, copy: &Copy, indent: usize) {
        let service = &self.project.services[piece.index];
        let mut fields: Vec<Field> =
            service.yaml.fields().iter().filter(|it| !copy.touches(&it.key)).cloned().collect();
        fields.extend(copy.with.iter().cloned());
        write_field(out, &field(&copy.name, Content::Map(fields).into()), indent);
    }

    /// A section of the file, with more in it.
    fn extended(&self, out: &mut String, section: &Part<'_>, more: &[Field]) {
        let lines = &self.project.lines;
        let Part { entry, lines: range } = section;
        if more.is_empty() && !self.sections.contains(&entry.key) {
            out.push_str(&lines.text(range.start, range.end));
            return;
        }
        let parts = cut(lines, &entry.node, entry.key_at.line + 1, range.end, entry.key_at.column);
        let parts = parts.filter(|_| !self.sections.contains(&entry.key));
        match parts.as_ref().and_then(|parts| parts.first()) {
            Some(first) => {
                let indent = first.entry.key_at.column - 1;
                let (text, tail) = split_tail(&lines.text(range.start, range.end), indent);
                out.push_str(&text);
                write_fields(out, more, indent);
                out.push_str(&tail);
            }
            None => {
                out.push_str(&lines.text(range.start, entry.key_at.line));
                let mut fields = Yaml::of(&entry.node, lines, true).fields().to_vec();
                fields.extend(more.iter().cloned());
                let value = match &entry.node.value {
                    Value::Map(_) | Value::Null => Content::Map(fields).into(),
                    _ => Yaml::of(&entry.node, lines, true),
                };
                write_field(out, &field(&entry.key, value), 0);
                let (_, tail) = split_tail(&lines.text(range.start, range.end), 0);
                out.push_str(&tail);
            }
        }
    }
}

/// Lines, and what they belong to.
type Ranges = Vec<(Unit, Range<usize>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Unit {
    Service(usize),
    Section(String),
}

/// Cuts off the empty lines at the end, and the comments that are not as far in as `indent`.
fn split_tail(text: &str, indent: usize) -> (String, String) {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let behind = |line: &&&str| {
        line.trim().is_empty() || indent > 0 && is_comment(line.trim_end(), indent - 1)
    };
    let tail = lines.iter().rev().take_while(behind).count();
    let (kept, tail) = lines.split_at(lines.len() - tail);
    (kept.concat(), tail.concat())
}

/// A file that is one line, or JSON: nothing of its form is worth keeping.
fn from_scratch(project: &Project<'_>, pieces: &Pieces) -> String {
    let cutter = Cutter { project, anew: HashSet::new(), sections: HashSet::new() };
    let mut out = String::new();
    let (mut volumes, mut networks) = (Some(&pieces.volumes), Some(&pieces.networks));
    for Entry { key, node, .. } in entries(&project.tree) {
        let more = match key.as_str() {
            "volumes" => volumes.take(),
            "networks" => networks.take(),
            "services" => {
                out.push_str("services:\n");
                for piece in &pieces.services {
                    for copy in &piece.copies {
                        cutter.anew(&mut out, piece, copy, 2);
                        write_fields(&mut out, &copy.beside, 2);
                    }
                }
                write_fields(&mut out, &pieces.added, 2);
                continue;
            }
            _ => None,
        };
        let mut value = Yaml::of(node, &project.lines, true);
        if let Some(more) = more.filter(|more| !more.is_empty()) {
            let fields = value.fields().iter().chain(more).cloned().collect();
            value = Content::Map(fields).into();
        }
        write_field(&mut out, &field(key, value), 0);
    }
    for (key, more) in [("volumes", volumes), ("networks", networks)] {
        if let Some(more) = more.filter(|more| !more.is_empty()) {
            write_field(&mut out, &field(key, Content::Map(more.clone()).into()), 0);
        }
    }
    out.push('\n');
    out
}
