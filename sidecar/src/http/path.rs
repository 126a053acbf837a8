//! The canonical path of a request: computed once, and used by routes, filters, logs and the upstream alike.
//!
//! The steps and their order are Envoy's (`path_with_escaped_slashes_action`, then `normalize_path`, then
//! `merge_slashes`), with one difference: a dot segment or an empty segment that carries parameters (`/..;a=b/`) is
//! refused, because some servers drop the parameters and then see another path than the one that was authorized.

use crate::config::http_connection_manager::{EscapedSlashes, HttpConnectionManager};

/// What is done to paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathRules {
    pub(crate) normalize: bool,
    pub(crate) merge_slashes: bool,
    pub(crate) escaped_slashes: EscapedSlashes,
}

impl From<&HttpConnectionManager> for PathRules {
    fn from(config: &HttpConnectionManager) -> Self {
        Self {
            normalize: config.normalize_path,
            merge_slashes: config.merge_slashes,
            escaped_slashes: config.escaped_slashes,
        }
    }
}

/// What became of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Canonical {
    /// It was canonical already.
    Unchanged,
    /// Path and query as they are from now on.
    Changed(String),
    /// The client is to ask for this path and query instead.
    Redirect(String),
    /// It is refused.
    Refused(&'static str),
}

impl PathRules {
    /// Brings the path (with its query, which stays as it is) into its canonical form.
    pub(crate) fn apply(&self, path_and_query: &str) -> Canonical {
        let end = path_and_query.find('?').unwrap_or(path_and_query.len());
        let (path, query) = path_and_query.split_at(end);
        if !path.starts_with('/') || !needs_a_look(path.as_bytes()) {
            return Canonical::Unchanged;
        }

        let mut new = path.to_owned();
        let mut redirect = false;
        if self.escaped_slashes != EscapedSlashes::KeepUnchanged
            && let Some(unescaped) = unescape_slashes(&new)
        {
            match self.escaped_slashes {
                EscapedSlashes::RejectRequest => {
                    return Canonical::Refused("the path has an escaped slash");
                }
                EscapedSlashes::UnescapeAndRedirect => redirect = true,
                EscapedSlashes::UnescapeAndForward | EscapedSlashes::KeepUnchanged => {}
            }
            new = unescaped;
        }
        if self.normalize {
            match normalize(&new) {
                Ok(normal) => new = normal,
                Err(reason) => return Canonical::Refused(reason),
            }
        }
        if self.merge_slashes {
            new = merge_slashes(&new);
        }
        if new == path {
            return Canonical::Unchanged;
        }
        new.push_str(query);
        if redirect { Canonical::Redirect(new) } else { Canonical::Changed(new) }
    }
}

/// Whether any rule could touch the path: the common path is known to be canonical after one pass over its bytes.
fn needs_a_look(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' | b'\\' | b';' => return true,
            b'/' | b'.' if after_slash => return true,
            _ => after_slash = *byte == b'/',
        }
    }
    false
}

/// With `%2F` and `%5C` (any case) replaced by what they stand for; `None`: there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut new = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        new.push_str(before);
        let replacement = match escape.as_bytes() {
            [_, b'2', b'F' | b'f', ..] => Some('/'),
            [_, b'5', b'C' | b'c', ..] => Some('\\'),
            _ => None,
        };
        match replacement {
            Some(replacement) => {
                new.push(replacement);
                rest = &escape[3..];
            }
            None => {
                new.push('%');
                rest = &escape[1..];
            }
        }
    }
    new.push_str(rest);
    (new.len() != path.len()).then_some(new)
}

/// RFC 3986 section 6.2.2: escapes of unreserved characters are decoded, dot segments removed; a backslash is a slash.
fn normalize(path: &str) -> Result<String, &'static str> {
    let decoded = decode_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = decoded.split('/');
    parts.next(); // before the leading slash
    let mut trailing_slash = false;
    for part in parts {
        let bare = part.find(';').map_or(part, |at| &part[..at]);
        let parameters = bare.len() != part.len();
        if parameters && matches!(bare, "" | "." | "..") {
            return Err("the path has a dot segment or an empty segment with parameters");
        }
        trailing_slash = false;
        match part {
            "." => trailing_slash = true,
            ".." => {
                segments.pop();
                trailing_slash = true;
            }
            _ => segments.push(part),
        }
    }
    let mut new = String::with_capacity(decoded.len());
    for segment in &segments {
        new.push('/');
        new.push_str(segment);
    }
    if trailing_slash || new.is_empty() {
        new.push('/');
    }
    Ok(new)
}

fn decode_unreserved(path: &str) -> Result<String, &'static str> {
    let mut new = String::with_capacity(path.len());
    let mut characters = path.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => new.push('/'),
            '%' => {
                let escape = path.get(at + 1..at + 3).ok_or("the path has a broken escape")?;
                let byte = escape
                    .bytes()
                    .all(|digit| digit.is_ascii_hexdigit())
                    .then(|| u8::from_str_radix(escape, 16).ok())
                    .flatten()
                    .ok_or("the path has a broken escape")?;
                match byte {
                    0 => return Err("the path has an escaped NUL"),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        new.push(char::from(byte));
                    }
                    // Kept escaped in what is sent on, but seen as what it is where it would hide a dot segment.
                    b';' => {
                        let segment = &new[new.rfind('/').map_or(0, |at| at + 1)..];
                        if matches!(segment, "" | "." | "..") {
                            return Err(
                                "the path has a dot segment or an empty segment with parameters",
                            );
                        }
                        new.push('%');
                        new.push_str(escape);
                    }
                    _ => {
                        new.push('%');
                        new.push_str(escape);
                    }
                }
                characters.next();
                characters.next();
            }
            _ => new.push(character),
        }
    }
    Ok(new)
}

fn merge_slashes(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !new.ends_with('/') {
            new.push(character);
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: PathRules = PathRules {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndForward,
    };
    const NORMALIZE: PathRules = PathRules {
        normalize: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::KeepUnchanged,
    };

    fn changed(path: &str) -> Canonical {
        Canonical::Changed(path.into())
    }

    #[test]
    fn dot_segments_are_removed_however_they_are_written() {
        for (path, expected) in [
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/../../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a\\..\\b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a/../b?x=/../y", "/b?x=/../y"),
        ] {
            assert_eq!(NORMALIZE.apply(path), changed(expected), "{path}");
        }
    }

    #[test]
    fn escapes_of_other_characters_stay_as_they_are() {
        for path in ["/a%20b", "/a%2fb", "/a%C3%A4", "/a;x=1/b", "/.well-known", "/a/...", "/"] {
            assert_eq!(NORMALIZE.apply(path), Canonical::Unchanged, "{path}");
        }
    }

    #[test]
    fn broken_escapes_nul_and_hidden_dot_segments_are_refused() {
        for path in [
            "/%",
            "/a%2",
            "/%zz",
            "/%+1",
            "/a%00b",
            "/user/..;a=b/admin",
            "/%2e%2e;/admin",
            "/;x/admin",
            "/x/..%3b/admin",
            "/x/..%3B/admin",
            "/%3bx/admin",
        ] {
            assert!(matches!(NORMALIZE.apply(path), Canonical::Refused(_)), "{path}");
        }
    }

    #[test]
    fn slashes_are_merged_only_where_asked_for() {
        let merge = PathRules { merge_slashes: true, normalize: false, ..NORMALIZE };
        assert_eq!(merge.apply("//a///b//?q=//"), changed("/a/b/?q=//"));
        assert_eq!(NORMALIZE.apply("//a//b"), Canonical::Unchanged);
    }

    #[test]
    fn escaped_slashes_follow_the_configured_action() {
        let with = |escaped_slashes| PathRules { escaped_slashes, ..NORMALIZE };
        let path = "/a%2F..%5cb";
        assert_eq!(with(EscapedSlashes::KeepUnchanged).apply("/a%2F.b"), Canonical::Unchanged);
        assert!(matches!(with(EscapedSlashes::RejectRequest).apply(path), Canonical::Refused(_)));
        assert_eq!(with(EscapedSlashes::UnescapeAndForward).apply(path), changed("/b"));
        assert_eq!(
            with(EscapedSlashes::UnescapeAndRedirect).apply(path),
            Canonical::Redirect("/b".into())
        );
    }

    #[test]
    fn nothing_is_touched_where_nothing_is_configured() {
        let none = PathRules { normalize: false, ..NORMALIZE };
        for path in ["/a/../b", "//a", "/%2e%2e", "/%", "*", "/..;/x"] {
            assert_eq!(none.apply(path), Canonical::Unchanged, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_a_fixed_point_without_dot_segments(path in "/[a./\\\\%2eEfF5cC;?]{0,24}") {
            if let Canonical::Changed(new) = ALL.apply(&path) {
                let path = new.split('?').next().unwrap_or_default();
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.contains("//"));
                prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(matches!(NORMALIZE.apply(&new), Canonical::Unchanged | Canonical::Refused(_)), "{new}");
            }
        }
    }
}
