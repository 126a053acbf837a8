//! Additions and removals of headers that routes are configured with.

use http::header::{HeaderMap, HeaderValue};

use crate::access_log::{Headers, LogRecord, render};
use crate::config::header::{AppendAction, HeaderMutations, HeaderTemplate};

/// Whose headers are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

impl HeaderMutations {
    /// Removes, then adds: what is removed and added has the added value, as in Envoy. `record` gives the values of command
    /// operators; it is only asked for where there is one.
    pub(crate) fn apply<'r>(
        &self,
        headers: &mut HeaderMap,
        side: Side,
        record: &mut dyn FnMut() -> LogRecord<'r>,
    ) {
        for name in &self.remove {
            headers.remove(name);
        }
        for addition in &self.add {
            let value = match &addition.value {
                HeaderTemplate::Fixed(value) => value.clone(),
                HeaderTemplate::Format(format) => {
                    let mut text = Vec::new();
                    let mut record: LogRecord<'_> = record();
                    match side {
                        Side::Request => record.request_headers = Headers::Map(headers),
                        Side::Response => record.response_headers = Headers::Map(headers),
                    }
                    render(format, &record, b"", &mut text);
                    match HeaderValue::from_bytes(&text) {
                        Ok(value) => value,
                        Err(_) => continue,
                    }
                }
            };
            if value.is_empty() && !addition.keep_empty_value {
                continue;
            }
            let name = addition.name.clone();
            let exists = headers.contains_key(&name);
            match addition.action {
                AppendAction::AppendIfExistsOrAdd => drop(headers.append(name, value)),
                AppendAction::AddIfAbsent if exists => {}
                AppendAction::OverwriteIfExists if !exists => {}
                AppendAction::AddIfAbsent
                | AppendAction::OverwriteIfExists
                | AppendAction::OverwriteIfExistsOrAdd => drop(headers.insert(name, value)),
            }
        }
    }
}

/// The mutations of all levels that a request goes through, in the order in which they are done.
pub(crate) struct Levels<'c> {
    levels: [Option<&'c HeaderMutations>; 4],
}

impl<'c> Levels<'c> {
    /// Given from the most specific (weighted cluster) to the outermost (route configuration). They are done in that order,
    /// so that the outermost wins, or the other way round (`most_specific_header_mutations_wins`).
    pub(crate) fn new(levels: [Option<&'c HeaderMutations>; 4], most_specific_wins: bool) -> Self {
        let mut levels = levels.map(|level| level.filter(|level| !level.is_empty()));
        if most_specific_wins {
            levels.reverse();
        }
        Self { levels }
    }

    pub(crate) fn apply<'r>(
        &self,
        headers: &mut HeaderMap,
        side: Side,
        record: &mut dyn FnMut() -> LogRecord<'r>,
    ) {
        self.levels.iter().flatten().for_each(|level| level.apply(headers, side, record));
    }

    /// Whether there is something to do.
    pub(crate) fn has_any(&self) -> bool {
        self.levels.iter().any(Option::is_some)
    }

    /// Whether some value has command operators.
    pub(crate) fn has_commands(&self) -> bool {
        self.levels
            .iter()
            .flatten()
            .any(|level| level.add.iter().any(|add| matches!(add.value, HeaderTemplate::Format(_))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::HeaderName;

    use super::*;
    use crate::config::header::HeaderAddition;

    fn add(value: &'static str, action: AppendAction) -> HeaderMutations {
        let addition = HeaderAddition {
            name: HeaderName::from_static("x"),
            value: HeaderTemplate::Fixed(HeaderValue::from_static(value)),
            action,
            keep_empty_value: false,
        };
        HeaderMutations { add: [addition].into(), remove: Box::default() }
    }

    fn applied(mutations: &HeaderMutations, before: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in before {
            headers.append("x", HeaderValue::from_static(value));
        }
        mutations
            .apply(&mut headers, Side::Request, &mut || LogRecord::new(SystemTime::UNIX_EPOCH));
        headers.get_all("x").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_append_action_does_what_its_name_says() {
        for (action, absent, present) in [
            (AppendAction::AppendIfExistsOrAdd, vec!["n"], vec!["o", "n"]),
            (AppendAction::AddIfAbsent, vec!["n"], vec!["o"]),
            (AppendAction::OverwriteIfExistsOrAdd, vec!["n"], vec!["n"]),
            (AppendAction::OverwriteIfExists, vec![], vec!["n"]),
        ] {
            assert_eq!(applied(&add("n", action), &[]), absent, "{action:?}");
            assert_eq!(applied(&add("n", action), &["o"]), present, "{action:?}");
        }
    }

    #[test]
    fn a_header_that_is_removed_and_added_has_the_added_value() {
        let mut mutations = add("n", AppendAction::AppendIfExistsOrAdd);
        mutations.remove = [HeaderName::from_static("x")].into();
        assert_eq!(applied(&mutations, &["o"]), ["n"]);
    }

    #[test]
    fn an_empty_value_is_added_only_if_it_is_to_be_kept() {
        let mut mutations = add("", AppendAction::OverwriteIfExistsOrAdd);
        assert_eq!(applied(&mutations, &["o"]), ["o"]);
        mutations.add[0].keep_empty_value = true;
        assert_eq!(applied(&mutations, &["o"]), [""]);
    }

    #[test]
    fn the_outermost_level_is_done_last_unless_the_most_specific_wins() {
        let (route, outer) = (
            add("route", AppendAction::OverwriteIfExistsOrAdd),
            add("outer", AppendAction::OverwriteIfExistsOrAdd),
        );
        for (most_specific_wins, expected) in [(false, "outer"), (true, "route")] {
            let levels = Levels::new([None, Some(&route), None, Some(&outer)], most_specific_wins);
            let mut headers = HeaderMap::new();
            levels.apply(&mut headers, Side::Response, &mut || {
                LogRecord::new(SystemTime::UNIX_EPOCH)
            });
            assert_eq!(headers["x"], expected);
        }
    }
}
