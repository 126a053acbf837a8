//! `COALESCE`: the first of several command operators that has a value.

use serde_json::{Map, Value};

use crate::config::access_log::Command;

use super::format::known;

/// Its operators: `{"operators": ["NAME", {"command": "NAME", "param": "ARGUMENT", "max_length": LENGTH}, ...]}`
pub(super) fn coalesce(argument: Option<&str>) -> Result<Box<[Command]>, String> {
    let argument = argument.unwrap_or_default();
    let wrong = |reason: &str| format!("%COALESCE({argument})% {reason}");
    let json: Value = serde_json::from_str(argument)
        .map_err(|error| wrong(&format!("needs a JSON object: {error}")))?;
    let Value::Object(mut object) = json else { return Err(wrong("needs a JSON object")) };
    let Some(Value::Array(operators)) = object.remove("operators") else {
        return Err(wrong("needs a list of operators"));
    };
    if let Some(other) = object.keys().next() {
        return Err(wrong(&format!("has {other:?}: expected operators")));
    }
    if operators.is_empty() {
        return Err(wrong("needs at least one operator"));
    }
    let one = |value| match value {
        Value::String(name) => nested(&name, None, None),
        Value::Object(object) => of_object(object).map_err(|reason| wrong(&reason)),
        other => Err(wrong(&format!("has {other}: expected a name or an object"))),
    };
    operators.into_iter().map(one).collect()
}

fn of_object(object: Map<String, Value>) -> Result<Command, String> {
    let (mut command, mut param, mut max_length) = (None, None, None);
    for (key, value) in object {
        match (key.as_str(), value) {
            ("command", Value::String(name)) => command = Some(name),
            ("param", Value::String(argument)) => param = Some(argument),
            ("max_length", Value::Number(number)) => {
                let length = number.as_u64().and_then(|length| usize::try_from(length).ok());
                max_length = Some(length.ok_or("has a max_length that is not a whole number")?);
            }
            (key, value) => {
                return Err(format!("has {key:?}: {value}: expected command, param, max_length"));
            }
        }
    }
    let name = command.ok_or("has an operator without a command")?;
    nested(&name, param.as_deref(), max_length)
}

fn nested(
    name: &str,
    argument: Option<&str>,
    max_length: Option<usize>,
) -> Result<Command, String> {
    // One in the other means nothing, and a stack is finite.
    if name == "COALESCE" {
        return Err("%COALESCE% cannot stand in another".to_owned());
    }
    known(name, argument, max_length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::access_log::{HeaderOrPseudo, Operator};

    #[test]
    fn operators_are_names_or_have_arguments() {
        let commands = coalesce(Some(
            r#"{"operators": [{"command": "REQ", "param": ":path", "max_length": 3}, "PROTOCOL"]}"#,
        ));
        let path = Operator::Req(HeaderOrPseudo::Path, None);
        let expected = [
            Command { operator: path, max_length: Some(3) },
            Command { operator: Operator::Protocol, max_length: None },
        ];
        assert_eq!(commands.as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn what_is_no_list_of_operators_is_refused() {
        for (argument, named) in [
            ("", "needs a JSON object"),
            ("[]", "needs a JSON object"),
            ("{}", "needs a list of operators"),
            (r#"{"operators": []}"#, "at least one"),
            (r#"{"operators": [7]}"#, "expected a name or an object"),
            (r#"{"operators": ["NOTHING"]}"#, "%NOTHING%"),
            (r#"{"operators": [{"param": "a"}]}"#, "without a command"),
            (r#"{"operators": [{"command": "REQ", "params": "a"}]}"#, "expected command"),
            (r#"{"operators": [{"command": "PROTOCOL", "max_length": 3}]}"#, "no length"),
            (
                r#"{"operators": [{"command": "REQ", "param": "a", "max_length": -3}]}"#,
                "max_length",
            ),
            (r#"{"operators": ["COALESCE"]}"#, "cannot stand in another"),
        ] {
            let error = coalesce(Some(argument)).expect_err(argument);
            assert!(error.contains(named), "{argument}: {error}");
        }
    }
}
