//! [`FieldChange`]: the fields in which two documents differ, by the paths that problems name them with.

use super::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One field before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its path, e.g. `spec.rules[0].backendRefs[1].weight`.
    pub field: String,
    /// As it was; absent if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// As it is since; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The fields in which two objects differ.
pub fn of_objects(before: &Object, after: &Object) -> Vec<FieldChange> {
    match (serde_json::to_value(before), serde_json::to_value(after)) {
        (Ok(before), Ok(after)) => of_documents(Some(&before), Some(&after)),
        _ => Vec::new(),
    }
}

/// The fields in which two documents differ. Where one of them is absent, that is its `labels` and `spec` as they are.
pub fn of_documents(before: Option<&Value>, after: Option<&Value>) -> Vec<FieldChange> {
    let mut found = Vec::new();
    match (before, after) {
        (Some(before), Some(after)) => compare(String::new(), before, after, &mut found),
        (None, None) => {}
        (one, other) => {
            for field in ["labels", "spec"] {
                let of = |document: Option<&Value>| document.and_then(|it| it.get(field)).cloned();
                let (before, after) = (of(one), of(other));
                if before.is_some() || after.is_some() {
                    found.push(FieldChange { field: field.to_owned(), before, after });
                }
            }
        }
    }
    found
}

fn compare(path: String, before: &Value, after: &Value, found: &mut Vec<FieldChange>) {
    let mut pair =
        |path: String, before: Option<&Value>, after: Option<&Value>| match (before, after) {
            (Some(before), Some(after)) => compare(path, before, after, found),
            _ => {
                let (before, after) = (before.cloned(), after.cloned());
                found.push(FieldChange { field: path, before, after });
            }
        };
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                pair(member(&path, key), Some(value), new.get(key));
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                pair(member(&path, key), None, Some(value));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                pair(format!("{path}[{index}]"), old.get(index), new.get(index));
            }
        }
        _ => found.push(FieldChange {
            field: path,
            before: Some(before.clone()),
            after: Some(after.clone()),
        }),
    }
}

/// A key with a dot in it, as labels may have, stands in brackets.
fn member(path: &str, key: &str) -> String {
    if key.contains('.') {
        format!("{path}[\"{key}\"]")
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(before: Option<Value>, after: Option<Value>) -> Vec<String> {
        let text = |value: Option<Value>| value.map_or("-".to_owned(), |it| it.to_string());
        of_documents(before.as_ref(), after.as_ref())
            .into_iter()
            .map(|it| format!("{} {} {}", it.field, text(it.before), text(it.after)))
            .collect()
    }

    #[test]
    fn only_the_fields_that_differ_are_named_each_by_its_path() {
        let before = json!({"name": "a", "labels": {"x.y/z": "1"}, "spec": {"p": [{"w": 90}, {"w": 10}], "t": "2s"}});
        let after =
            json!({"name": "a", "labels": {"x.y/z": "2"}, "spec": {"p": [{"w": 50}], "u": true}});
        assert_eq!(
            texts(Some(before), Some(after)),
            [
                "labels[\"x.y/z\"] \"1\" \"2\"",
                "spec.p[0].w 90 50",
                "spec.p[1] {\"w\":10} -",
                "spec.t \"2s\" -",
                "spec.u - true",
            ]
        );
    }

    #[test]
    fn a_document_that_comes_or_goes_is_told_whole() {
        let document = json!({"kind": "Service", "name": "a", "spec": {"p": 1}});
        assert_eq!(texts(None, Some(document.clone())), ["spec - {\"p\":1}"]);
        assert_eq!(texts(Some(document.clone()), None), ["spec {\"p\":1} -"]);
        assert_eq!(texts(Some(document.clone()), Some(document)), Vec::<String>::new());
    }
}
