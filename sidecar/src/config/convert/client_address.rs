//! Who a request comes from: `internal_address_config`, `original_ip_detection_extensions`, and what is done to its headers
//! before that is asked, `early_header_mutation_extensions`.

use http::StatusCode;
use ipnet::IpNet;
use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::InternalAddressConfig;
use outrigger_proto::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use outrigger_proto::envoy::extensions::http::original_ip_detection::custom_header::v3::CustomHeaderConfig;
use outrigger_proto::envoy::extensions::http::original_ip_detection::xff::v3::{
    XffConfig, XffTrustedCidrs,
};
use outrigger_proto::google::protobuf::Any;

use crate::config::Problems;
use crate::config::client_address::{ClientAddress, InternalAddresses, TrustedProxies};
use crate::config::http_filters::HeaderOperation;

use super::common::{
    boolean, cidr_range, header_name, http_status, typed_config, unknown_type, unpack,
};
use super::http_filters::header_mutation;

/// `internal_address_config`: without it no address is internal.
pub(super) fn internal(
    problems: &mut Problems,
    proto: Option<InternalAddressConfig>,
) -> InternalAddresses {
    let InternalAddressConfig { unix_sockets, cidr_ranges } = proto.unwrap_or_default();
    problems.field("internal_address_config", |problems| InternalAddresses {
        ranges: ranges(problems, "cidr_ranges", cidr_ranges),
        unix_sockets,
    })
}

fn ranges(problems: &mut Problems, name: &str, protos: Vec<CidrRange>) -> Box<[IpNet]> {
    let ranges = protos.into_iter().enumerate().filter_map(|(index, proto)| {
        problems.element(name, index, |problems| cidr_range(problems, proto))
    });
    ranges.collect()
}

/// `original_ip_detection_extensions`. As in Envoy they go together neither with `use_remote_address` nor with
/// `xff_num_trusted_hops`, which say the same in another way.
pub(super) fn detection(
    problems: &mut Problems,
    protos: Vec<TypedExtensionConfig>,
    use_remote_address: bool,
    xff_num_trusted_hops: u32,
) -> Box<[ClientAddress]> {
    const NAME: &str = "original_ip_detection_extensions";
    if !protos.is_empty() && use_remote_address {
        problems.reject_field(NAME, "cannot be set together with use_remote_address");
    }
    if !protos.is_empty() && xff_num_trusted_hops > 0 {
        problems.reject_field(NAME, "cannot be set together with xff_num_trusted_hops");
    }
    extensions(problems, NAME, protos, |problems, config| {
        if any::holds::<XffConfig>(config) {
            let proto = unpack(problems, config)?;
            Some(forwarded_for(problems, proto))
        } else if any::holds::<CustomHeaderConfig>(config) {
            let proto = unpack(problems, config)?;
            custom_header(problems, proto)
        } else {
            unknown_type(problems, config, &["XffConfig", "CustomHeaderConfig"]);
            None
        }
    })
}

fn forwarded_for(problems: &mut Problems, proto: XffConfig) -> ClientAddress {
    let XffConfig { xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append } = proto;
    if xff_num_trusted_hops > 0 && xff_trusted_cidrs.is_some() {
        problems
            .reject_field("xff_trusted_cidrs", "cannot be set together with xff_num_trusted_hops");
    }
    let trust = match xff_trusted_cidrs {
        Some(XffTrustedCidrs { cidrs }) if !cidrs.is_empty() => problems
            .field("xff_trusted_cidrs", |problems| {
                TrustedProxies::Ranges(ranges(problems, "cidrs", cidrs))
            }),
        _ => TrustedProxies::Hops(xff_num_trusted_hops),
    };
    ClientAddress::ForwardedFor { trust, append: !boolean(skip_xff_append, true) }
}

fn custom_header(problems: &mut Problems, proto: CustomHeaderConfig) -> Option<ClientAddress> {
    let CustomHeaderConfig {
        header_name: name,
        allow_extension_to_set_address_as_trusted: trusted,
        reject_with_status,
    } = proto;
    let name = header_name(problems, "header_name", &name);
    // What is no error becomes one, as in Envoy.
    let reject = http_status(problems, "reject_with_status", reject_with_status)
        .map(|status| if status.as_u16() < 400 { StatusCode::FORBIDDEN } else { status });
    Some(ClientAddress::Header { name: name?, trusted, reject })
}

/// `early_header_mutation_extensions`
pub(super) fn early_mutations(
    problems: &mut Problems,
    protos: Vec<TypedExtensionConfig>,
) -> Box<[HeaderOperation]> {
    let all =
        extensions(problems, "early_header_mutation_extensions", protos, |problems, config| {
            if !any::holds::<HeaderMutation>(config) {
                unknown_type(problems, config, &["HeaderMutation"]);
                return None;
            }
            let HeaderMutation { mutations } = unpack(problems, config)?;
            if mutations.is_empty() {
                problems.reject_field("mutations", "must have at least one entry");
            }
            Some(header_mutation::operations(problems, "mutations", mutations))
        });
    all.into_iter().flatten().collect()
}

/// Extensions of the field `name`, each read by `read`.
fn extensions<T>(
    problems: &mut Problems,
    name: &str,
    protos: Vec<TypedExtensionConfig>,
    mut read: impl FnMut(&mut Problems, &Any) -> Option<T>,
) -> Box<[T]> {
    let mut all = Vec::with_capacity(protos.len());
    for (index, proto) in protos.into_iter().enumerate() {
        problems.element(name, index, |problems| {
            let Some(config) = typed_config(problems, proto) else { return };
            all.extend(problems.field("typed_config", |problems| read(problems, &config)));
        });
    }
    all.into()
}
