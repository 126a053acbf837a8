//! `GET /openapi.json`: this API in the words of OpenAPI 3.1.
//!
//! What is enumerated comes from the types themselves; for the rest, a test asks every path of a running API and compares
//! what it answers with what is written here, member by member.

use super::failure::Failure;
use super::input::Parameters;
use crate::model::Kind;
use axum::Json;
use serde_json::{Map, Value, json};

pub(super) async fn serve(parameters: Parameters) -> Result<Json<Value>, Failure> {
    parameters.finish(&[])?;
    Ok(Json(document()))
}

/// One call.
struct Call {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Names of parameters in the query.
    query: &'static [&'static str],
    /// Whether there is a body, and of which media types.
    body: &'static [&'static str],
    /// Statuses with the schema of what they bring; an empty one brings text.
    answers: &'static [(u16, &'static str)],
    /// Statuses that bring a problem.
    problems: &'static [u16],
}

const DOCUMENTS: &[&str] = &["application/yaml", "application/json"];
const JSON: &[&str] = &["application/json"];

const CALLS: &[Call] = &[
    Call {
        method: "post",
        path: "/v1/apply",
        summary: "Apply documents in one transaction, all or none of them",
        query: &["dryRun", "wait"],
        body: DOCUMENTS,
        answers: &[(200, "Applied")],
        problems: &[400, 403, 409, 413, 422, 503, 504],
    },
    Call {
        method: "get",
        path: "/v1/{kind}",
        summary: "The objects of a kind",
        query: &[],
        body: &[],
        answers: &[(200, "ObjectList")],
        problems: &[404],
    },
    Call {
        method: "get",
        path: "/v1/{kind}/{name}",
        summary: "An object; its ETag is the revision that last changed it",
        query: &[],
        body: &[],
        answers: &[(200, "ObjectAnswer")],
        problems: &[404],
    },
    Call {
        method: "put",
        path: "/v1/{kind}/{name}",
        summary: "Create or replace an object; If-Match and If-None-Match are obeyed",
        query: &[],
        body: DOCUMENTS,
        answers: &[(200, "ObjectAnswer"), (201, "ObjectAnswer")],
        problems: &[400, 403, 404, 409, 412, 413, 422, 503],
    },
    Call {
        method: "delete",
        path: "/v1/{kind}/{name}",
        summary: "Delete an object that nobody uses",
        query: &[],
        body: &[],
        answers: &[(204, "")],
        problems: &[403, 404, 409, 412, 503],
    },
    Call {
        method: "get",
        path: "/v1/status",
        summary: "Which sidecars serve what, and what they rejected",
        query: &[],
        body: &[],
        answers: &[(200, "Status")],
        problems: &[400],
    },
    Call {
        method: "get",
        path: "/v1/status/{kind}/{name}",
        summary: "Who serves an object",
        query: &[],
        body: &[],
        answers: &[(200, "NamedStatus")],
        problems: &[404],
    },
    Call {
        method: "get",
        path: "/v1/endpoints",
        summary: "The instances of services, as their callers see them",
        query: &["service"],
        body: &[],
        answers: &[(200, "EndpointList")],
        problems: &[400],
    },
    Call {
        method: "get",
        path: "/v1/history",
        summary: "Revisions, the newest first",
        query: &["limit", "diff"],
        body: &[],
        answers: &[(200, "History")],
        problems: &[400, 503],
    },
    Call {
        method: "post",
        path: "/v1/rollback/{revision}",
        summary: "A new revision with the objects of an old one",
        query: &["wait"],
        body: &[],
        answers: &[(200, "Applied")],
        problems: &[403, 404, 409, 503, 504],
    },
    Call {
        method: "get",
        path: "/v1/export",
        summary: "Every object, as documents that apply takes back",
        query: &[],
        body: &[],
        answers: &[(200, "")],
        problems: &[400],
    },
    Call {
        method: "get",
        path: "/v1/events",
        summary: "Server-sent events, one a revision; Last-Event-ID resumes",
        query: &[],
        body: &[],
        answers: &[(200, "")],
        problems: &[400],
    },
    Call {
        method: "post",
        path: "/v1/tokens",
        summary: "A token that lets sidecars of a service join",
        query: &[],
        body: JSON,
        answers: &[(201, "Token")],
        problems: &[400, 422, 503],
    },
    Call {
        method: "get",
        path: "/v1/identities",
        summary: "Every instance with a certificate that is still good",
        query: &[],
        body: &[],
        answers: &[(200, "IdentityList")],
        problems: &[400],
    },
    Call {
        method: "post",
        path: "/v1/identities/{name}/revoke",
        summary: "Refuse a service or an instance from now on, and close what it has open",
        query: &[],
        body: &[],
        answers: &[(200, "Revoked")],
        problems: &[404, 409, 503],
    },
    Call {
        method: "get",
        path: "/v1/ca",
        summary: "The trusted roots, and how far a rotation has come",
        query: &[],
        body: &[],
        answers: &[(200, "Authority")],
        problems: &[400],
    },
    Call {
        method: "post",
        path: "/v1/ca/rotate",
        summary: "Replace the root, in steps that wait for every member",
        query: &["wait"],
        body: &[],
        answers: &[(200, "Authority"), (202, "Authority")],
        problems: &[400, 503, 504],
    },
    Call {
        method: "get",
        path: "/v1/audit",
        summary: "Who did what, the newest first",
        query: &["limit"],
        body: &[],
        answers: &[(200, "Audit")],
        problems: &[400, 503],
    },
    Call {
        method: "get",
        path: "/healthz",
        summary: "The process answers",
        query: &[],
        body: &[],
        answers: &[(200, "")],
        problems: &[],
    },
    Call {
        method: "get",
        path: "/readyz",
        summary: "The process serves",
        query: &[],
        body: &[],
        answers: &[(200, "")],
        problems: &[503],
    },
    Call {
        method: "get",
        path: "/metrics",
        summary: "Figures in the text format of Prometheus",
        query: &[],
        body: &[],
        answers: &[(200, "")],
        problems: &[],
    },
    Call {
        method: "get",
        path: "/openapi.json",
        summary: "This document",
        query: &[],
        body: &[],
        answers: &[(200, "Any")],
        problems: &[],
    },
];

fn document() -> Value {
    let mut paths = Map::new();
    for call in CALLS {
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method] = operation(call);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrigger mesh API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The control plane of a service mesh",
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "Needed when the control plane was started with --api-tokens. Roles: viewer, editor, admin.",
            }},
            "schemas": schemas(),
        },
    })
}

fn operation(call: &Call) -> Value {
    let mut responses = Map::new();
    for (status, schema) in call.answers {
        let content = match *schema {
            "" if *status == 204 => json!({}),
            "" => json!({"text/plain": {"schema": {"type": "string"}}}),
            schema => json!({"application/json": {"schema": reference(schema)}}),
        };
        responses.insert(status.to_string(), json!({"description": "Done", "content": content}));
    }
    for status in call.problems.iter().chain(&[401]) {
        let content = json!({"application/problem+json": {"schema": reference("Problem")}});
        let description = "What is wrong (RFC 9457)";
        responses
            .insert(status.to_string(), json!({"description": description, "content": content}));
    }
    let in_path = call.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = match name {
            "kind" => json!({"type": "string", "enum": Kind::ALL.map(Kind::plural)}),
            "revision" => json!({"type": "integer", "minimum": 0}),
            _ => json!({"type": "string"}),
        };
        Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
    });
    let in_query = call.query.iter().map(|name| {
        let schema = match *name {
            "dryRun" | "diff" => json!({"type": "boolean"}),
            "limit" => json!({"type": "integer", "minimum": 1, "maximum": 1000}),
            "wait" => json!({"type": "string", "examples": ["10s"]}),
            _ => json!({"type": "string"}),
        };
        json!({"name": name, "in": "query", "schema": schema})
    });
    let parameters: Vec<_> = in_path.chain(in_query).collect();
    let mut operation = json!({
        "summary": call.summary, "parameters": parameters, "responses": responses,
    });
    if !call.body.is_empty() {
        let media = call.body.iter().map(|media| ((*media).to_owned(), json!({"schema": {}})));
        let content: Map<String, Value> = media.collect();
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn list(of: &str) -> Value {
    object(&[("items", json!({"type": "array", "items": reference(of)}))], &[])
}

/// An object with just these members; the optional ones may be absent.
fn object(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let members: Map<String, Value> = required
        .iter()
        .chain(optional)
        .map(|(name, it)| ((*name).to_owned(), it.clone()))
        .collect();
    let names: Vec<_> = required.iter().map(|(name, _)| *name).collect();
    json!({"type": "object", "properties": members, "required": names, "additionalProperties": false})
}

fn schemas() -> Value {
    let (text, number, flag) =
        (json!({"type": "string"}), json!({"type": "integer"}), json!({"type": "boolean"}));
    let time = json!({"type": "string", "format": "date-time"});
    let any = json!({});
    let array = |of: &str| json!({"type": "array", "items": reference(of)});
    let texts = json!({"type": "array", "items": text});
    let word = |words: &[&str]| json!({"type": "string", "enum": words});
    let kind = json!({"type": "string", "enum": Kind::ALL.map(Kind::as_str)});
    let map = json!({"type": "object", "additionalProperties": text});
    let t = |schema: &Value| schema.clone();
    let document = [("kind", t(&kind)), ("name", t(&text)), ("spec", json!({"type": "object"}))];
    let mut answer = document.to_vec();
    answer.extend([("revision", t(&number)), ("status", reference("ObjectStatus"))]);
    let status = [
        ("state", word(&["Accepted", "Rejected", "Partial", "Pending"])),
        ("acked", t(&number)),
        ("total", t(&number)),
        ("problems", array("ObjectProblem")),
    ];
    let mut named = vec![("kind", t(&kind)), ("name", t(&text)), ("revision", t(&number))];
    named.extend(status.clone());
    let types = ["listeners", "routes", "clusters", "endpoints", "secrets"];
    let mut sidecar = vec![
        ("node", t(&text)),
        ("service", t(&text)),
        ("instance", t(&text)),
        ("connected", t(&flag)),
        ("client", word(&["outrigger", "envoy", "grpc"])),
        ("revision", t(&number)),
        ("lastContact", t(&time)),
    ];
    sidecar.extend(types.map(|name| (name, reference("TypeStatus"))));
    let field_change = object(&[("field", t(&text))], &[("before", t(&any)), ("after", t(&any))]);
    let change = |actions: &[&str]| {
        object(
            &[("kind", t(&text)), ("name", t(&text)), ("action", word(actions))],
            &[("fields", array("FieldChange"))],
        )
    };
    let difference =
        object(&[("added", t(&number)), ("changed", t(&number)), ("removed", t(&number))], &[]);
    let effects = ["listeners", "routes", "clusters", "endpoints"]
        .map(|name| (name, reference("Difference")));
    json!({
        "Any": {},
        "Problem": {
            "type": "object",
            "properties": {
                "type": text, "title": text, "status": number, "detail": text, "errors": array("FieldProblem"),
            },
            "required": ["type", "title", "status", "detail"],
        },
        "FieldProblem": object(&[("code", t(&text)), ("reason", t(&text))], &[
            ("kind", t(&text)), ("name", t(&text)), ("field", t(&text)), ("suggestion", t(&text)), ("choices", t(&texts)),
            ("line", t(&number)), ("column", t(&number)),
        ]),
        "Applied": object(
            &[("revision", t(&number)), ("objects", array("PlannedObject")), ("acked", t(&number)), ("total", t(&number))],
            &[("effect", reference("Effect")), ("warnings", array("FieldProblem"))],
        ),
        "PlannedObject": change(&["created", "updated", "unchanged", "deleted"]),
        "FieldChange": field_change,
        "Effect": object(&[("changed", t(&number)), ("total", t(&number)), ("sidecars", array("SidecarEffect"))], &[]),
        "SidecarEffect": object(&[("node", t(&text)), ("service", t(&text))], &effects),
        "Difference": difference,
        "ObjectList": list("ObjectAnswer"),
        "ObjectAnswer": object(&answer, &[("labels", t(&map))]),
        "ObjectStatus": object(&status, &[]),
        "ObjectProblem": object(&[("node", t(&text)), ("reason", t(&text))], &[]),
        "NamedStatus": object(&named, &[]),
        "Status": object(&[
            ("revision", t(&number)), ("sidecars", array("Sidecar")), ("objects", array("NamedStatus")), ("alarms", array("Alarm")),
        ], &[]),
        "Sidecar": object(&sidecar, &[("certificateExpires", t(&time))]),
        "TypeStatus": object(&[("state", word(&["ok", "pending", "REJECTED"]))], &[("reason", t(&text))]),
        "Alarm": object(&[("code", t(&text)), ("detail", t(&text))], &[]),
        "EndpointList": list("Endpoint"),
        "Endpoint": object(&[
            ("service", t(&text)), ("instance", t(&text)), ("address", t(&text)), ("port", t(&number)),
            ("health", word(&["healthy", "unhealthy", "draining", "ejected"])), ("weight", t(&number)),
            ("activeRequests", t(&number)), ("locality", t(&map)), ("labels", t(&map)), ("seenBy", t(&texts)),
        ], &[("ejectedUntil", t(&time)), ("ejectedBecause", t(&text))]),
        "History": list("Revision"),
        "Revision": object(&[
            ("revision", t(&number)), ("time", t(&time)), ("author", t(&text)), ("changes", array("Change")),
        ], &[]),
        "Change": change(&["created", "updated", "deleted"]),
        "Token": object(&[("token", t(&text)), ("service", t(&text)), ("expires", t(&time)), ("uses", t(&number))], &[]),
        "IdentityList": list("Identity"),
        "Identity": object(&[
            ("service", t(&text)), ("instance", t(&text)), ("connected", t(&flag)), ("serial", t(&text)), ("expires", t(&time)),
            ("revoked", t(&flag)),
        ], &[]),
        "Revoked": object(&[("identities", array("RevokedIdentity")), ("tokens", t(&number))], &[]),
        "RevokedIdentity": object(&[("service", t(&text)), ("instance", t(&text)), ("certificates", t(&number))], &[]),
        "Authority": object(
            &[("roots", array("Root")), ("issuingExpires", t(&time))],
            &[("rotation", reference("Rotation"))],
        ),
        "Root": object(&[("pin", t(&text)), ("expires", t(&time))], &[]),
        "Rotation": object(&[
            ("step", word(&["trusting", "issuing"])), ("since", t(&time)), ("waitingFor", array("ObjectProblem")),
        ], &[]),
        "Audit": list("AuditEntry"),
        "AuditEntry": object(&[
            ("time", t(&time)), ("author", t(&text)), ("action", t(&text)), ("target", t(&text)),
        ], &[("revision", t(&number))]),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What is wrong with `value` by `schema`, as far as the words go that are used above.
    pub(in crate::api) fn check(value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
        let all = schemas();
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap();
            assert!(!all[name].is_null(), "{name} is not written down");
            return check(value, &all[name], at, found);
        }
        let fits = match schema["type"].as_str() {
            None => true,
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some(other) => panic!("{other}"),
        };
        if !fits {
            found.push(format!("{at}: {value} is no {}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            found.push(format!("{at}: {value} is none of {}", schema["enum"]));
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            check(item, &schema["items"], &format!("{at}[{index}]"), found);
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if value[name.as_str().unwrap()].is_null() {
                found.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            match &schema["properties"][name] {
                Value::Null if schema["additionalProperties"] == false => {
                    found.push(format!("{at}: {name} is not written down"));
                }
                Value::Null => {}
                of => check(member, of, &format!("{at}.{name}"), found),
            }
        }
    }

    /// The schema of what a call answers with this status; `None`: text.
    pub(in crate::api) fn answer(method: &str, path: &str, status: u16) -> Option<Value> {
        let document = document();
        let responses = &document["paths"][path][method]["responses"];
        let response = &responses[status.to_string()];
        assert!(!response.is_null(), "{method} {path} does not say that it answers {status}");
        let content = response["content"].as_object().unwrap();
        let json = content.iter().find(|(media, _)| media.ends_with("json"));
        json.map(|(_, content)| content["schema"].clone())
    }

    /// Every call that is written down, as method and path.
    pub(in crate::api) fn calls() -> Vec<(&'static str, &'static str)> {
        CALLS.iter().map(|call| (call.method, call.path)).collect()
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(!document["components"]["schemas"][name].is_null(), "{name}");
        }
    }
}
