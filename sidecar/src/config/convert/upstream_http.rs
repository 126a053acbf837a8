//! HTTP towards endpoints: `HttpProtocolOptions`, or the deprecated fields of the cluster.

use std::collections::HashMap;

use outrigger_proto::any;
use outrigger_proto::envoy::config::cluster::v3::cluster::ClusterProtocolSelection;
use outrigger_proto::envoy::config::core::v3 as core;
use outrigger_proto::envoy::extensions::upstreams::http::v3 as proto;
use outrigger_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use outrigger_proto::google::protobuf::{Any, UInt32Value};

use crate::config::Problems;
use crate::config::cluster::UpstreamProtocol;
use crate::config::hash_policy::HashPolicy;
use crate::config::http_connection_manager::{Http2Options, Underscores};
use crate::config::http1::UpstreamHttp1;

use super::common::{Present, enumeration, number, sorted, unknown_type, unpack, unsupported};
use super::http_options::{self, Common};
use super::{hash_policy, http1};

/// The only kind of options that clusters have here.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster's own fields, from before [`KEY`].
pub(super) struct Legacy {
    pub(super) upstream_http_protocol_options: Option<core::UpstreamHttpProtocolOptions>,
    pub(super) common_http_protocol_options: Option<core::HttpProtocolOptions>,
    pub(super) http_protocol_options: Option<core::Http1ProtocolOptions>,
    pub(super) http2_protocol_options: Option<core::Http2ProtocolOptions>,
    pub(super) protocol_selection: i32,
    pub(super) max_requests_per_connection: Option<UInt32Value>,
}

/// What both ways come to.
pub(super) struct UpstreamHttp {
    pub(super) protocol: UpstreamProtocol,
    pub(super) http1: UpstreamHttp1,
    pub(super) http2: Http2Options,
    pub(super) common: Common,
    pub(super) auto_sni: bool,
    /// Of every request to the cluster, whatever its route says.
    pub(super) hash_policy: Vec<HashPolicy>,
}

/// The options of a cluster.
pub(super) fn convert(
    problems: &mut Problems,
    typed: HashMap<String, Any>,
    legacy: Legacy,
) -> UpstreamHttp {
    let mut options = None;
    for (key, config) in sorted(typed) {
        problems.element("typed_extension_protocol_options", &key, |problems| {
            if any::holds::<proto::HttpProtocolOptions>(&config) && key == KEY {
                options = unpack(problems, &config).map(|proto| of_extension(problems, proto));
            } else if key == KEY {
                unknown_type(problems, &config, &[KEY]);
            } else {
                problems.reject(format!("not supported by this version of Outrigger: only {KEY}"));
            }
        });
    }
    match options {
        None => of_legacy(problems, legacy),
        Some(options) => {
            not_both(problems, &legacy);
            // Of this one field alone the old place counts too, where the new one says nothing.
            let most = number(legacy.max_requests_per_connection).filter(|most| *most > 0);
            let mut options = options;
            let common = &mut options.common;
            common.max_requests_per_connection = common.max_requests_per_connection.or(most);
            options
        }
    }
}

/// Envoy ignores the old fields beside the new one in silence; whoever sets both means something else.
fn not_both(problems: &mut Problems, legacy: &Legacy) {
    let Legacy {
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        protocol_selection: _, // unset looks like a choice: nothing to see
        max_requests_per_connection: _, // counts
    } = legacy;
    for (name, is_present) in [
        ("upstream_http_protocol_options", upstream_http_protocol_options.is_present()),
        ("common_http_protocol_options", common_http_protocol_options.is_present()),
        ("http_protocol_options", http_protocol_options.is_present()),
        ("http2_protocol_options", http2_protocol_options.is_present()),
    ] {
        if is_present {
            problems.reject_field(
                name,
                "has no effect beside typed_extension_protocol_options: set it there",
            );
        }
    }
}

fn of_legacy(problems: &mut Problems, legacy: Legacy) -> UpstreamHttp {
    let Legacy {
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        protocol_selection,
        max_requests_per_connection,
    } = legacy;
    let selection = enumeration(problems, "protocol_selection", protocol_selection);
    let protocol = if selection == Some(ClusterProtocolSelection::UseDownstreamProtocol) {
        UpstreamProtocol::Downstream
    } else if http2_protocol_options.is_some() {
        UpstreamProtocol::Http2
    } else {
        UpstreamProtocol::Http1
    };
    let mut common = common_options(problems, common_http_protocol_options);
    if common.max_requests_per_connection.is_none() {
        common.max_requests_per_connection =
            number(max_requests_per_connection).filter(|max| *max > 0);
    }
    UpstreamHttp {
        protocol,
        http1: http1(problems, http_protocol_options),
        http2: http2(problems, http2_protocol_options),
        common,
        auto_sni: auto_sni(problems, upstream_http_protocol_options),
        hash_policy: Vec::new(),
    }
}

fn of_extension(problems: &mut Problems, proto: proto::HttpProtocolOptions) -> UpstreamHttp {
    let proto::HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = proto;
    unsupported!(problems;
        http_filters, header_validation_config, outlier_detection, request_mirror_policies,
        retry_policy);
    let (protocol, http1, http2) = match upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config,
        })) => {
            problems.field("explicit_http_config", |problems| explicit(problems, protocol_config))
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
        })) => problems.field("use_downstream_protocol_config", |problems| {
            unsupported!(problems; http3_protocol_options);
            let http1 = http1(problems, http_protocol_options);
            (UpstreamProtocol::Downstream, http1, http2(problems, http2_protocol_options))
        }),
        Some(UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options,
            http2_protocol_options,
            http3_protocol_options,
            alternate_protocols_cache_options,
        })) => problems.field("auto_config", |problems| {
            unsupported!(problems; http3_protocol_options, alternate_protocols_cache_options);
            let http1 = http1(problems, http_protocol_options);
            (UpstreamProtocol::Auto, http1, http2(problems, http2_protocol_options))
        }),
        None => {
            problems.reject(
                "one of explicit_http_config, use_downstream_protocol_config, auto_config is required",
            );
            (UpstreamProtocol::Http1, UpstreamHttp1::default(), http2(problems, None))
        }
    };
    UpstreamHttp {
        protocol,
        http1,
        http2,
        common: common_options(problems, common_http_protocol_options),
        auto_sni: auto_sni(problems, upstream_http_protocol_options),
        hash_policy: hash_policy::convert(problems, hash_policy),
    }
}

fn explicit(
    problems: &mut Problems,
    proto: Option<ProtocolConfig>,
) -> (UpstreamProtocol, UpstreamHttp1, Http2Options) {
    match proto {
        Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
            (UpstreamProtocol::Http2, UpstreamHttp1::default(), http2(problems, Some(options)))
        }
        Some(ProtocolConfig::HttpProtocolOptions(options)) => {
            (UpstreamProtocol::Http1, http1(problems, Some(options)), http2(problems, None))
        }
        Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
            problems.unsupported("http3_protocol_options", true);
            (UpstreamProtocol::Http1, UpstreamHttp1::default(), http2(problems, None))
        }
        None => {
            problems.reject("one of http_protocol_options, http2_protocol_options is required");
            (UpstreamProtocol::Http1, UpstreamHttp1::default(), http2(problems, None))
        }
    }
}

fn http1(problems: &mut Problems, proto: Option<core::Http1ProtocolOptions>) -> UpstreamHttp1 {
    problems.field("http_protocol_options", |problems| http1::upstream(problems, proto))
}

fn http2(problems: &mut Problems, proto: Option<core::Http2ProtocolOptions>) -> Http2Options {
    problems.field("http2_protocol_options", |problems| http_options::http2(problems, proto))
}

fn common_options(problems: &mut Problems, proto: Option<core::HttpProtocolOptions>) -> Common {
    problems.field("common_http_protocol_options", |problems| {
        let common = http_options::common(problems, proto);
        problems.unsupported("max_stream_duration", common.max_stream_duration.is_some());
        problems.unsupported(
            "headers_with_underscores_action",
            common.underscores != Underscores::Allow,
        );
        common
    })
}

fn auto_sni(problems: &mut Problems, proto: Option<core::UpstreamHttpProtocolOptions>) -> bool {
    let core::UpstreamHttpProtocolOptions {
        auto_sni,
        auto_san_validation,
        override_auto_sni_header,
    } = proto.unwrap_or_default();
    problems.field("upstream_http_protocol_options", |problems| {
        unsupported!(problems; auto_san_validation, override_auto_sni_header);
    });
    auto_sni
}
