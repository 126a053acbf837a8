//! Tracing of a connection manager and of a route, and its provider.

use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::config::route::v3 as route;
use outrigger_proto::envoy::config::trace::v3 as trace;
use outrigger_proto::envoy::config::trace::v3::tracing::http::ConfigType;
use outrigger_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use outrigger_proto::envoy::extensions::tracers::opentelemetry::resource_detectors::v3 as detectors;
use outrigger_proto::envoy::extensions::tracers::opentelemetry::samplers::v3 as samplers;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_key::PathSegment;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
use outrigger_proto::envoy::r#type::metadata::v3::metadata_kind::{self, Kind};
use outrigger_proto::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind};
use outrigger_proto::envoy::r#type::tracing::v3 as tags;
use outrigger_proto::envoy::r#type::tracing::v3::custom_tag::Type;
use outrigger_proto::envoy::r#type::v3::{FractionalPercent, Percent};

use crate::config::Problems;
use crate::config::access_log::{Command, Format, FormatPart, MetadataOf, Operator};
use crate::config::http_filters::Fraction;
use crate::config::tracing::{
    CustomTag, Decorator, Exporter, OpenTelemetry, RouteTracing, Sampler, Sampling, TagMetadata,
    TagValue, Tracing,
};

use super::common::{
    boolean, header_name, header_value, number, optional, required, sorted, text, typed_config,
    unknown_type, unpack, unsupported,
};
use super::{format, grpc_service, percent};

const DEFAULT_MAX_PATH: u32 = 256;
const DEFAULT_MAX_CACHE: u32 = 1024;

/// What `request_id_extension` says about tracing.
pub(super) struct RequestId {
    pub(super) pack_trace_reason: bool,
    pub(super) use_for_sampling: bool,
}

/// Tracing of a connection manager.
pub(super) fn convert(
    problems: &mut Problems,
    proto: Option<hcm::Tracing>,
    request_id: &RequestId,
) -> Option<Tracing> {
    let hcm::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = proto?;
    problems.field("tracing", |problems| {
        let default = Sampling::default();
        let sampling = Sampling {
            client: share(problems, "client_sampling", client_sampling).unwrap_or(default.client),
            random: share(problems, "random_sampling", random_sampling).unwrap_or(default.random),
            overall: share(problems, "overall_sampling", overall_sampling)
                .unwrap_or(default.overall),
        };
        let provider = provider
            .and_then(|it| problems.field("provider", |problems| provider_of(problems, it)));
        Some(Tracing {
            sampling,
            verbose,
            max_path_tag_length: number(max_path_tag_length).unwrap_or(DEFAULT_MAX_PATH) as usize,
            custom_tags: self::custom_tags(problems, custom_tags),
            provider: provider.map(Arc::new),
            spawn_upstream_span: boolean(spawn_upstream_span, false),
            operation: operation_of(problems, "operation", &operation),
            upstream_operation: operation_of(problems, "upstream_operation", &upstream_operation),
            context_propagation: !no_context_propagation,
            pack_trace_reason: request_id.pack_trace_reason,
            use_request_id: request_id.use_for_sampling,
        })
    })
}

/// Tracing of a route.
pub(super) fn of_route(
    problems: &mut Problems,
    proto: Option<route::Tracing>,
) -> Option<RouteTracing> {
    let route::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        custom_tags,
        operation,
        upstream_operation,
    } = proto?;
    problems.field("tracing", |problems| {
        let default = Sampling::default();
        let mut fraction = |name: &str, proto: Option<FractionalPercent>| {
            proto.and_then(|proto| percent::plain(problems, name, proto))
        };
        let sampling = Sampling {
            client: fraction("client_sampling", client_sampling).unwrap_or(default.client),
            random: fraction("random_sampling", random_sampling).unwrap_or(default.random),
            overall: fraction("overall_sampling", overall_sampling).unwrap_or(default.overall),
        };
        Some(RouteTracing {
            sampling,
            custom_tags: self::custom_tags(problems, custom_tags),
            operation: operation_of(problems, "operation", &operation),
            upstream_operation: operation_of(problems, "upstream_operation", &upstream_operation),
        })
    })
}

/// The decorator of a route.
pub(super) fn decorator(
    problems: &mut Problems,
    proto: Option<route::Decorator>,
) -> Option<Decorator> {
    let route::Decorator { operation, propagate } = proto?;
    problems.field("decorator", |problems| {
        let operation = text(problems, "operation", operation);
        let operation = header_value(problems, "operation", operation.as_bytes())?;
        Some(Decorator { operation, propagate: boolean(propagate, true) })
    })
}

/// A percentage, in hundredths of a percent as Envoy rounds it.
fn share(problems: &mut Problems, name: &str, proto: Option<Percent>) -> Option<Fraction> {
    let Percent { value } = proto?;
    if !(0.0..=100.0).contains(&value) {
        problems.reject_field(name, format!("{value} is out of range: 0 to 100"));
        return None;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 10000
    Some(((value * 100.0).round() as u32, 10_000))
}

/// `None` for an empty text.
fn operation_of(problems: &mut Problems, name: &str, text: &str) -> Option<Format> {
    if text.is_empty() {
        return None;
    }
    match format::parse(text) {
        Ok(format) => Some(format),
        Err(reason) => {
            problems.reject_field(name, reason);
            None
        }
    }
}

/// Tags in the field `custom_tags`.
pub(super) fn custom_tags(problems: &mut Problems, protos: Vec<tags::CustomTag>) -> Vec<CustomTag> {
    let one = |(index, proto)| {
        problems.element("custom_tags", index, |problems| {
            let tags::CustomTag { tag, r#type } = proto;
            let tag = text(problems, "tag", tag);
            let value = tag_value(problems, r#type)?;
            Some(CustomTag { tag: tag.into(), value })
        })
    };
    protos.into_iter().enumerate().filter_map(one).collect()
}

fn tag_value(problems: &mut Problems, proto: Option<Type>) -> Option<TagValue> {
    match proto {
        None => {
            problems
                .reject("one of literal, environment, request_header, metadata, value is required");
            None
        }
        Some(Type::Literal(tags::custom_tag::Literal { value })) => {
            let value = problems.field("literal", |problems| text(problems, "value", value));
            Some(TagValue::Fixed(Some(value.into())))
        }
        Some(Type::Environment(tags::custom_tag::Environment { name, default_value })) => {
            let name = problems.field("environment", |problems| text(problems, "name", name));
            // A name with `=` or NUL in it is no variable's.
            let found = std::env::var_os(&name).map(|value| value.to_string_lossy().into());
            Some(TagValue::Fixed(found.or_else(|| optional(default_value))))
        }
        Some(Type::RequestHeader(tags::custom_tag::Header { name, default_value })) => {
            let name =
                problems.field("request_header", |problems| header_name(problems, "name", &name));
            Some(TagValue::RequestHeader(name?, optional(default_value)))
        }
        Some(Type::Value(value)) => match format::parse(&value) {
            Ok(format) => Some(TagValue::Format(format)),
            Err(reason) => {
                problems.reject_field("value", reason);
                None
            }
        },
        Some(Type::Metadata(proto)) => {
            problems.field("metadata", |problems| metadata_value(problems, proto))
        }
    }
}

fn metadata_value(problems: &mut Problems, proto: tags::custom_tag::Metadata) -> Option<TagValue> {
    let tags::custom_tag::Metadata { kind, metadata_key, default_value } = proto;
    let MetadataKey { key, path } = required(problems, "metadata_key", metadata_key)?;
    let (namespace, path) = problems.field("metadata_key", |problems| {
        let namespace: Box<str> = text(problems, "key", key).into();
        let mut keys: Vec<Box<str>> = Vec::with_capacity(path.len());
        if path.is_empty() {
            problems.reject_field("path", "must have at least one entry");
        }
        for (index, PathSegment { segment }) in path.into_iter().enumerate() {
            problems.element("path", index, |problems| match segment {
                Some(Segment::Key(key)) => keys.push(text(problems, "key", key).into()),
                // Envoy's reader of lists.
                Some(Segment::Index(_)) => problems.unsupported("index", true),
                None => problems.reject_field("key", "required"),
            });
        }
        (namespace, keys.into_boxed_slice())
    });
    // Without `kind` Envoy reads the request's; one that does not say which is refused.
    let request = Kind::Request(metadata_kind::Request {});
    let kind = match kind {
        None => request,
        Some(MetadataKind { kind: Some(kind) }) => kind,
        Some(MetadataKind { kind: None }) => {
            problems.reject_field("kind", "one of request, route, cluster, host is required");
            return None;
        }
    };
    let whose = match kind {
        Kind::Route(metadata_kind::Route {}) => None,
        Kind::Request(metadata_kind::Request {}) => Some(MetadataOf::Request),
        Kind::Cluster(metadata_kind::Cluster {}) => Some(MetadataOf::Cluster),
        Kind::Host(metadata_kind::Host {}) => Some(MetadataOf::Endpoint),
    };
    let source = match whose {
        None => TagMetadata::Route(namespace, path),
        Some(whose) => {
            let operator = Operator::Metadata(whose, namespace, path);
            let command = FormatPart::Command(Command { operator, max_length: None });
            TagMetadata::Format(Format { parts: Box::new([command]) })
        }
    };
    Some(TagValue::Metadata(source, optional(default_value)))
}

fn provider_of(problems: &mut Problems, proto: trace::tracing::Http) -> Option<OpenTelemetry> {
    let trace::tracing::Http { name, config_type } = proto;
    text(problems, "name", name);
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        problems.reject_field("typed_config", "required");
        return None;
    };
    problems.field("typed_config", |problems| {
        if any::holds::<trace::OpenTelemetryConfig>(&config) {
            let config = unpack(problems, &config)?;
            return opentelemetry(problems, config);
        }
        unknown_type(problems, &config, &["OpenTelemetryConfig"]);
        None
    })
}

fn opentelemetry(
    problems: &mut Problems,
    proto: trace::OpenTelemetryConfig,
) -> Option<OpenTelemetry> {
    let trace::OpenTelemetryConfig {
        grpc_service,
        http_service,
        exporter,
        service_name,
        resource_detectors,
        sampler,
        max_cache_size,
        set_telemetry_sdk_resource_attributes,
        set_service_name_resource_attribute,
        set_instrumentation_scope,
    } = proto;
    unsupported!(problems; exporter);
    if grpc_service.is_some() && http_service.is_some() {
        problems.reject_field("http_service", "cannot be set together with grpc_service");
    } else if grpc_service.is_none() && http_service.is_none() {
        problems.reject("one of grpc_service, http_service is required");
    }
    let grpc = grpc_service.and_then(|proto| {
        problems.field("grpc_service", |problems| grpc_service::convert(problems, proto))
    });
    let http = http_service.and_then(|proto| {
        problems.field("http_service", |problems| grpc_service::http(problems, proto))
    });
    let sampler = sampler
        .and_then(|proto| problems.field("sampler", |problems| sampler_of(problems, proto, 0)));
    let mut resource: Vec<(Box<str>, Box<str>)> = Vec::new();
    if boolean(set_telemetry_sdk_resource_attributes, true) {
        for (key, value) in [
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.name", "outrigger"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ] {
            resource.push((key.into(), value.into()));
        }
    }
    if boolean(set_service_name_resource_attribute, true) {
        let name = if service_name.is_empty() { "unknown_service:envoy" } else { &service_name };
        resource.push(("service.name".into(), name.into()));
    }
    for (index, proto) in resource_detectors.into_iter().enumerate() {
        let found =
            problems.element("resource_detectors", index, |problems| detect(problems, proto));
        resource.extend(found);
    }
    Some(OpenTelemetry {
        exporter: grpc.map(Exporter::Grpc).or(http.map(Exporter::Http)),
        resource: last_of_each(resource),
        instrumentation_scope: boolean(set_instrumentation_scope, true),
        sampler,
        max_cache_size: number(max_cache_size).unwrap_or(DEFAULT_MAX_CACHE).max(1) as usize,
    })
}

/// Each key once, with the value that was named last.
fn last_of_each(attributes: Vec<(Box<str>, Box<str>)>) -> Vec<(Box<str>, Box<str>)> {
    let mut kept: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(attributes.len());
    for (key, value) in attributes {
        match kept.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None => kept.push((key, value)),
        }
    }
    kept
}

/// How deep samplers may stand in each other.
const MAX_SAMPLERS: u32 = 8;

fn sampler_of(problems: &mut Problems, proto: TypedExtensionConfig, depth: u32) -> Option<Sampler> {
    let config = typed_config(problems, proto)?;
    problems.field("typed_config", |problems| {
        if any::holds::<samplers::AlwaysOnSamplerConfig>(&config) {
            let samplers::AlwaysOnSamplerConfig {} = unpack(problems, &config)?;
            return Some(Sampler::AlwaysOn);
        }
        if any::holds::<samplers::ParentBasedSamplerConfig>(&config) && depth < MAX_SAMPLERS {
            let samplers::ParentBasedSamplerConfig { wrapped_sampler } = unpack(problems, &config)?;
            let wrapped = required(problems, "wrapped_sampler", wrapped_sampler)?;
            let wrapped = problems
                .field("wrapped_sampler", |problems| sampler_of(problems, wrapped, depth + 1))?;
            return Some(Sampler::ParentBased(Box::new(wrapped)));
        }
        if any::holds::<samplers::TraceIdRatioBasedSamplerConfig>(&config) {
            let samplers::TraceIdRatioBasedSamplerConfig { sampling_percentage } =
                unpack(problems, &config)?;
            // Without a share Envoy samples nothing.
            let share = sampling_percentage.unwrap_or_default();
            let (numerator, denominator) = percent::plain(problems, "sampling_percentage", share)?;
            return Some(Sampler::TraceIdRatio(numerator, denominator));
        }
        unknown_type(
            problems,
            &config,
            &[
                "AlwaysOnSamplerConfig",
                "ParentBasedSamplerConfig",
                "TraceIdRatioBasedSamplerConfig",
            ],
        );
        None
    })
}

/// The attributes that a detector finds, now.
fn detect(problems: &mut Problems, proto: TypedExtensionConfig) -> Vec<(Box<str>, Box<str>)> {
    let Some(config) = typed_config(problems, proto) else { return Vec::new() };
    problems.field("typed_config", |problems| {
        if any::holds::<detectors::EnvironmentResourceDetectorConfig>(&config) {
            let _: Option<detectors::EnvironmentResourceDetectorConfig> = unpack(problems, &config);
            let text = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
            return from_environment(problems, &text);
        }
        if any::holds::<detectors::StaticConfigResourceDetectorConfig>(&config) {
            let config: Option<detectors::StaticConfigResourceDetectorConfig> =
                unpack(problems, &config);
            let detectors::StaticConfigResourceDetectorConfig { attributes } =
                config.unwrap_or_default();
            let attributes = sorted(attributes).into_iter();
            return attributes.map(|(key, value)| (key.into(), value.into())).collect();
        }
        unknown_type(
            problems,
            &config,
            &["EnvironmentResourceDetectorConfig", "StaticConfigResourceDetectorConfig"],
        );
        Vec::new()
    })
}

/// `key=value,key=value`.
fn from_environment(problems: &mut Problems, text: &str) -> Vec<(Box<str>, Box<str>)> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let mut found = Vec::new();
    for pair in pairs {
        match pair.split_once('=') {
            Some((key, value)) => found.push((key.into(), value.into())),
            None => problems.reject(format!(
                "OTEL_RESOURCE_ATTRIBUTES is not a list of key=value: {pair:?} has no '='"
            )),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_resource_attribute_counts() {
        let given = [("a", "1"), ("b", "2"), ("a", "3")].map(|(k, v)| (k.into(), v.into()));
        let kept = last_of_each(given.into());
        assert_eq!(kept, [("a", "3"), ("b", "2")].map(|(k, v)| (k.into(), v.into())));
    }

    #[test]
    fn a_resource_attribute_of_the_environment_without_a_value_is_refused() {
        let mut problems = Problems::new();
        let found = from_environment(&mut problems, "a=b,c,,d=e=f");
        assert_eq!(found, [("a", "b"), ("d", "e=f")].map(|(k, v)| (k.into(), v.into())));
        assert!(problems.finish(Some(())).is_err());
    }
}
