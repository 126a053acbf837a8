//! Reading of kind `Policy`.

use super::fields::{At, Scope};
use super::{Meta, mesh, values};
use crate::model::Policy;
use crate::model::policy::{PathPattern, ServiceRef};

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Policy> {
    scope.mapping(at, |spec| {
        let to = spec.required("to", services);
        let action = spec.required("action", mesh::action);
        let from = spec.optional("from", services).unwrap_or_default();
        let methods = spec
            .optional("methods", |scope, at| {
                let methods = scope.list_of_some(at, values::method);
                scope.refuse_duplicates(at, "", methods.iter().map(String::as_str));
                Some(methods)
            })
            .unwrap_or_default();
        let paths = spec
            .optional("paths", |scope, at| Some(scope.list_of_some(at, path_pattern)))
            .unwrap_or_default();
        Some(Policy {
            name: meta.name,
            labels: meta.labels,
            to: to?,
            action: action?,
            from,
            methods,
            paths,
        })
    })
}

/// An empty list would name nobody, and an absent one names anyone: that is no difference to make by accident.
fn services(scope: &mut Scope, at: At<'_>) -> Option<Vec<ServiceRef>> {
    let services = scope.list_of_some(at, |scope, at| {
        scope.mapping(at, |fields| {
            let service = fields.required("service", values::name);
            Some(ServiceRef { service: service? })
        })
    });
    scope.refuse_duplicates(at, "service", services.iter().map(|it| it.service.as_str()));
    Some(services)
}

fn path_pattern(scope: &mut Scope, at: At<'_>) -> Option<PathPattern> {
    let path = values::path(scope, at)?;
    let (pattern, stars) = match path.strip_suffix('*') {
        Some(prefix) => (PathPattern::Prefix(prefix.to_owned()), prefix.contains('*')),
        None => (PathPattern::Exact(path.clone()), path.contains('*')),
    };
    if stars {
        scope.invalid(
            at,
            format!("`{path}` has a `*` before its end: one `*`, at the end, stands for any rest"),
        );
    }
    Some(pattern)
}
