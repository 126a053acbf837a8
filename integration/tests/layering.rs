//! The layers of the sidecar: which module may use which. `ALLOWED` is the one place where that is written down; a new
//! edge is a decision about the architecture and starts here.
//!
//! The test reads the sources: every `crate::x` (in a `use`, a group or inline) and every chain of `super::` that leaves
//! a top-level module is an edge. Comments and strings do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Module, and what it may use. `*` is everything. What stands higher is used by what stands lower, never the reverse.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cli", &["server"]),
    ("logging", &["cli"]),
    ("stats", &[]),
    // Tokens and keys, without any I/O: the configuration holds keys that are parsed.
    ("jwt", &[]),
    ("config", &["stats", "jwt"]),
    // A connection has addresses, which configurations have too.
    ("transport", &["config"]),
    ("copy", &[]),
    ("drain", &[]),
    ("apart", &[]),
    ("access_log", &["config", "stats"]),
    ("trace", &["config", "stats"]),
    ("tls", &["config", "stats"]),
    ("snapshot", &["config", "stats", "tls", "cluster", "http", "listener", "tcp_proxy"]),
    // An endpoint holds the TLS context it is connected with: that is a part of what makes it the same endpoint.
    // Health checks connect to it themselves.
    ("cluster", &["config", "stats", "tls", "transport"]),
    ("upstream", &["config", "stats", "tls", "cluster", "transport"]),
    // What HTTP and TCP both say in logs.
    ("log_facts", &["access_log", "tls", "upstream"]),
    // What may be waited for.
    ("on_demand", &["config"]),
    // What one worker has for itself is made of what http and upstream define, and handed to them.
    ("local", &["stats", "cluster", "upstream", "http", "snapshot", "on_demand"]),
    (
        "http",
        &[
            "config",
            "stats",
            "jwt",
            "tls",
            "cluster",
            "upstream",
            "transport",
            "access_log",
            "log_facts",
            "trace",
            "snapshot",
            "local",
            "on_demand",
            "drain",
            "copy",
        ],
    ),
    (
        "tcp_proxy",
        &[
            "config",
            "stats",
            "tls",
            "cluster",
            "upstream",
            "transport",
            "access_log",
            "log_facts",
            "local",
            "drain",
            "copy",
        ],
    ),
    (
        "listener",
        &[
            "config",
            "stats",
            "tls",
            "cluster",
            "upstream",
            "transport",
            "access_log",
            "log_facts",
            "trace",
            "http",
            "tcp_proxy",
            "snapshot",
            "local",
            "drain",
        ],
    ),
    // Its own connection to the control plane is TLS.
    ("xds", &["config", "stats", "tls"]),
    ("mesh", &["cli", "config", "tls", "xds"]),
    ("admin", &["config", "stats", "cluster", "tls", "logging", "cli", "transport", "apart"]),
    ("worker", &["*"]),
    ("server", &["*"]),
];

/// Who may name the types generated from Envoy's protos.
///
/// `access_log/grpc` writes the entries of logs, which are protos and nothing else.
/// `admin/client_status.rs` answers a service of theirs.
/// `mesh` writes the bootstrap and the secret of a member in memory; `server/dump.rs` shows the bootstrap as it was read.
/// `http/filters/ext_authz/grpc.rs`, `http/filters/ratelimit/service.rs` and `server/load_reports.rs` call services of
/// theirs.
const KNOW_PROTOS: &[&str] = &[
    "config",
    "xds",
    "mesh",
    "server/dump.rs",
    "server/load_reports.rs",
    "access_log/grpc",
    "admin/client_status.rs",
    "http/filters/ext_authz/grpc.rs",
    "http/filters/ratelimit/service.rs",
];

#[test]
fn no_module_uses_what_stands_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/src");
    let sources = sources(&root).unwrap();
    assert!(sources.len() > 10, "the sources of the sidecar are not where this test looks");
    let violations = violations(&sources);
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn a_wrong_edge_is_found_in_every_way_to_write_it() {
    let wrong = [
        "use crate::xds::Client;",
        "use crate::{config::Cluster, xds};",
        "use crate::{\n    config::{Cluster, Route},\n    xds::{Client},\n};",
        "pub(crate) use crate :: xds::Client;",
        "fn f() { crate::xds::run(); }",
        "use super::super::xds::Client;",
        "use super::{super::xds::Client, x};",
        "fn f(x: super::super::xds::X) {}",
        "use outrigger_proto::envoy::config::Cluster;",
    ];
    for text in wrong {
        let violations = violations(&example("http/router.rs", text));
        assert_eq!(violations.len(), 1, "{text}: {violations:?}");
    }
}

#[test]
fn what_is_no_edge_is_not_taken_for_one() {
    let right = [
        "use crate::config::Cluster;",
        "use crate::http::xds;",
        "use super::xds::X;",
        "// use crate::xds::Client;",
        "/* use crate::xds; */",
        "const X: &str = \"crate::xds\";",
        "use other_crate::xds::Y;",
    ];
    for text in right {
        let violations = violations(&example("http/router.rs", text));
        assert!(violations.is_empty(), "{text}: {violations:?}");
    }
}

#[test]
fn a_module_that_nobody_placed_is_found() {
    assert_eq!(violations(&example("helpers.rs", "")).len(), 1);
}

/// The example beside the file of the module that it must not use.
fn example(path: &str, text: &str) -> Vec<(PathBuf, String)> {
    vec![(PathBuf::from(path), text.to_owned()), (PathBuf::from("xds/mod.rs"), String::new())]
}

/// Every source file, by its path below `root`.
fn sources(root: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
                found.push((below, fs::read_to_string(&path)?));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn violations(sources: &[(PathBuf, String)]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let modules: BTreeSet<String> =
        sources.iter().filter_map(|(path, _)| module(path).into_iter().next()).collect();
    let mut violations = Vec::new();
    for name in modules.iter().filter(|name| !allowed.contains_key(name.as_str())) {
        violations.push(format!("{name}: no layer; place it in ALLOWED"));
    }
    for (path, text) in sources {
        let place = module(path);
        let Some(from) = place.first() else { continue };
        let may = allowed.get(from.as_str()).copied().unwrap_or(&["*"]);
        let text = without_comments_and_strings(text);
        for to in edges(&text, place.len()) {
            let known = modules.contains(&to) && to != *from;
            if known && !may.contains(&to.as_str()) && !may.contains(&"*") {
                violations.push(format!("{}: {from} must not use {to}", path.display()));
            }
        }
        if text.contains("outrigger_proto::envoy")
            && !KNOW_PROTOS.iter().any(|known| path.starts_with(known))
        {
            violations.push(format!("{}: {from} must not name a generated type", path.display()));
        }
    }
    violations
}

/// `http/filters/rbac.rs` is `[http, filters, rbac]`; the crate's own roots are nothing.
fn module(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    if parts.len() == 1 && (parts[0] == "lib" || parts[0] == "main") {
        parts.clear();
    }
    parts
}

/// The top-level names that a text reaches, from a module `depth` levels below the crate.
fn edges(text: &str, depth: usize) -> BTreeSet<String> {
    let tokens = tokens(text);
    let mut found = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let path_goes_on = index > 0 && tokens[index - 1] == "::";
        if token == "crate"
            && !path_goes_on
            && tokens.get(index + 1).is_some_and(|next| next == "::")
        {
            names(&tokens[index + 2..], &mut found);
        }
        if token == "super" {
            // The last of as many as lead out of the top-level module; a group may stand in between.
            let before = supers_before(&tokens, index);
            let ends = tokens.get(index + 2).is_none_or(|next| next != "super");
            if before + 1 >= depth && ends && tokens.get(index + 1).is_some_and(|next| next == "::")
            {
                names(&tokens[index + 2..], &mut found);
            }
        }
    }
    found
}

/// How many `super` stand before the one at `index` in the same path.
fn supers_before(tokens: &[String], index: usize) -> usize {
    let mut count = 0;
    let mut at = index;
    while at >= 2 {
        let opened = tokens[at - 1] == "{" && at >= 3 && tokens[at - 2] == "::";
        let previous = if tokens[at - 1] == "::" {
            at - 2
        } else if opened {
            at - 3
        } else {
            break;
        };
        if tokens[previous] != "super" {
            break;
        }
        count += 1;
        at = previous;
    }
    count
}

/// The first names of a path, or of each path of a group.
fn names(tokens: &[String], found: &mut BTreeSet<String>) {
    let Some(first) = tokens.first() else { return };
    if first != "{" {
        found.insert(first.clone());
        return;
    }
    let (mut level, mut expecting) = (0, false);
    for token in tokens {
        match token.as_str() {
            "{" => {
                level += 1;
                expecting = level == 1;
            }
            "}" => {
                level -= 1;
                if level == 0 {
                    return;
                }
            }
            "," => expecting = level == 1,
            name if expecting => {
                found.insert(name.to_owned());
                expecting = false;
            }
            _ => {}
        }
    }
}

/// Identifiers, `::`, braces and commas; everything else is a token of no meaning.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        if next.is_alphanumeric() || next == '_' {
            let mut word = String::from(next);
            while let Some(more) = rest.next_if(|more| more.is_alphanumeric() || *more == '_') {
                word.push(more);
            }
            tokens.push(word);
        } else if next == ':' && rest.next_if_eq(&':').is_some() {
            tokens.push("::".to_owned());
        } else if !next.is_whitespace() {
            tokens.push(next.to_string());
        }
    }
    tokens
}

fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len())
        } else if first == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.push(' ');
        rest = &rest[skip..];
    }
    out
}

/// The number of `#` of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
