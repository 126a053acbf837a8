//! Reading of kind `Endpoint`.

use super::fields::{At, Scope};
use super::{Meta, values};
use crate::model::Endpoint;
use crate::model::endpoint::Locality;
use std::net::IpAddr;

pub(super) fn read(scope: &mut Scope, at: At<'_>, meta: Meta) -> Option<Endpoint> {
    scope.mapping(at, |spec| {
        let service = spec.required("service", values::name);
        let address = spec.required("address", address);
        let port = spec.required("port", values::port);
        let weight = spec.optional("weight", |scope, at| values::number(scope, at, 1..=1_000_000));
        let workload_labels = spec.optional("labels", values::labels).unwrap_or_default();
        let locality = spec.optional("locality", locality).unwrap_or_default();
        Some(Endpoint {
            name: meta.name,
            labels: meta.labels,
            service: service?,
            address: address?,
            port: port?,
            weight: weight.unwrap_or(1),
            workload_labels,
            locality,
        })
    })
}

fn address(scope: &mut Scope, at: At<'_>) -> Option<IpAddr> {
    let text = values::text(scope, at)?;
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            scope.invalid(at, format!("`{text}` is not an address something can be reached at"));
            None
        }
        Ok(address) => Some(address),
        Err(_) if values::is_host_name(&text) && !text.ends_with(|c: char| c.is_ascii_digit()) => {
            scope.not_supported(at, "a host name as address (write its IP address)");
            None
        }
        Err(_) => {
            scope.invalid(at, format!("`{text}` is not an IP address"));
            None
        }
    }
}

fn locality(scope: &mut Scope, at: At<'_>) -> Option<Locality> {
    let place = |scope: &mut Scope, at: At<'_>| {
        values::text_that(scope, at, |text| {
            if text.len() <= 128 && text.chars().all(|c| !c.is_control()) {
                return Ok(());
            }
            Err("up to 128 bytes, without control characters".to_owned())
        })
    };
    scope.mapping(at, |fields| {
        Some(Locality {
            region: fields.optional("region", place).unwrap_or_default(),
            zone: fields.optional("zone", place).unwrap_or_default(),
        })
    })
}
