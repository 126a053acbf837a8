//! What is wrong with resources, each thing shown at its source line with a caret.

use std::fmt::Write as _;

use super::input::Input;
use crate::client::FieldError;
use crate::exit::Failure;

/// A rejection of everything in `input`, as text of several lines.
pub(super) fn rejected(errors: &[FieldError], input: &Input) -> Failure {
    let problems = match errors.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let mut text = format!("{problems} in {}; nothing was changed", input.names());
    for error in errors {
        text.push_str("\n\n");
        text.push_str(&show(error, input));
    }
    Failure::Rejected(text)
}

/// ```text
/// api.yaml:7:13: Service/api spec.loadBalancer.policy: unknown policy
///   7 |     policy: leest_request
///     |             ^ did you mean "least_request"?
/// ```
pub(super) fn show(error: &FieldError, input: &Input) -> String {
    let place = error.line.and_then(|line| input.place(line));
    let Some(place) = place else {
        return match hint(error) {
            Some(hint) => format!("{error}\n  {hint}"),
            None => error.to_string(),
        };
    };
    let column = error.column.unwrap_or(1).max(1);
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    // The caret keeps the tabs of the line, so that it stands under its character however wide they are.
    let indent: String = place
        .text
        .chars()
        .take(usize::try_from(column - 1).unwrap_or(0))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let mut text = String::new();
    let _ = writeln!(text, "{}:{}:{column}: {error}", place.file, place.line);
    let _ = writeln!(text, "  {number} | {}", place.text);
    let _ = write!(text, "  {margin} | {indent}^");
    if let Some(hint) = hint(error) {
        let _ = write!(text, " {hint}");
    }
    text
}

fn hint(error: &FieldError) -> Option<String> {
    match (&error.suggestion, &error.choices) {
        (Some(suggestion), _) => Some(format!("did you mean \"{suggestion}\"?")),
        (None, Some(choices)) if !choices.is_empty() => {
            Some(format!("one of: {}", choices.join(", ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> Input {
        let mut input = Input::default();
        input.add("a.yaml", "kind: Mesh\nname: default\n");
        input.add("b.yaml", "kind: Service\nspec:\n\tpolicy: leest_request\n");
        input
    }

    fn error(line: Option<u64>) -> FieldError {
        FieldError {
            kind: Some("Service".to_owned()),
            name: Some("api".to_owned()),
            field: Some("spec.policy".to_owned()),
            reason: "unknown policy".to_owned(),
            suggestion: Some("least_request".to_owned()),
            line,
            column: Some(10),
            ..FieldError::default()
        }
    }

    #[test]
    fn a_problem_is_shown_at_its_line_with_a_caret_under_its_column() {
        let failure = rejected(&[error(Some(6))], &input());
        assert_eq!(failure.code(), 4);
        assert_eq!(
            failure.message(),
            "1 problem in 2 files; nothing was changed\n\n\
             b.yaml:3:10: Service/api spec.policy: unknown policy\n  \
             3 | \tpolicy: leest_request\n    \
             | \t        ^ did you mean \"least_request\"?"
        );
    }

    #[test]
    fn a_problem_without_a_line_is_shown_all_the_same() {
        let failure = rejected(&[error(None), error(Some(1))], &input());
        assert!(failure.message().contains("2 problems"));
        assert!(failure.message().contains("Service/api spec.policy: unknown policy\n  did you"));
    }
}
