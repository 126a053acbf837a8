//! Reading of kind `Gateway`.

use super::fields::{At, Scope};
use super::{Meta, values};
use crate::model::Gateway;
use crate::model::gateway::{GatewayListener, GatewayProtocol};

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Gateway> {
    scope.mapping(at, |spec| {
        let listeners = spec.required("listeners", listeners);
        Some(Gateway { name: meta.name, labels: meta.labels, listeners: listeners? })
    })
}

fn listeners(scope: &mut Scope, at: At<'_>) -> Option<Vec<GatewayListener>> {
    let listeners = scope.list_of_some(at, listener);
    scope.refuse_duplicates(at, "name", listeners.iter().map(|one| one.name.as_str()));
    let ports: Vec<_> = listeners.iter().map(|one| one.port.to_string()).collect();
    scope.refuse_duplicates(at, "port", ports.iter().map(String::as_str));
    Some(listeners)
}

fn listener(scope: &mut Scope, at: At<'_>) -> Option<GatewayListener> {
    scope.mapping(at, |fields| {
        let name = fields.required("name", values::name);
        let port = fields.required("port", values::port);
        let protocol = fields.required("protocol", |scope, at| {
            let later = ["https", "http2", "grpc", "tcp", "tls"];
            values::choice(scope, at, &[("http", GatewayProtocol::Http)], &later)
        });
        let hostname =
            fields.optional("hostname", |scope, at| values::host_pattern(scope, at, true));
        fields.not_supported(&["tls"]);
        Some(GatewayListener {
            name: name?,
            port: port?,
            protocol: protocol?,
            hostname: hostname.unwrap_or_else(|| "*".to_owned()),
        })
    })
}
