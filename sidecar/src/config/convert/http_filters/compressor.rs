//! `envoy.filters.http.compressor`

use std::collections::HashSet;

use outrigger_proto::envoy::config::core::v3::RuntimeFeatureFlag;
use outrigger_proto::envoy::extensions::filters::http::compressor::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::compressor::v3::compressor as inner;
use outrigger_proto::envoy::extensions::filters::http::compressor::v3::compressor_per_route::Override;

use crate::config::Problems;
use crate::config::compressor::{
    Compressor, CompressorPerRoute, ContentTypes, Direction, ResponseDirection,
};

use super::super::common::{boolean, number, required};
use super::super::{compression, matcher, percent};

/// Envoy's least `content-length` where none is configured.
const MIN_LENGTH: u32 = 30;

/// What is compressed where nothing is configured, as in Envoy.
const TYPES: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
];

/// The filter's own configuration.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::Compressor,
) -> Option<Compressor> {
    #[allow(deprecated)] // Envoy still obeys them where there is no response_direction_config
    let proto::Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = proto;
    let response = match response_direction_config {
        Some(proto) => {
            problems.field("response_direction_config", |problems| response(problems, proto))
        }
        None => ResponseDirection {
            common: Direction {
                enabled: enabled(problems, "runtime_enabled", runtime_enabled),
                min_length: min_length(number(content_length)),
                types: named(content_type),
            },
            legacy_statistics: true,
            disable_on_etag: disable_on_etag_header,
            weaken_etag: false,
            remove_accept_encoding: remove_accept_encoding_header,
            uncompressible: Box::default(),
            status_header: false,
        },
    };
    let request =
        request_direction_config.map(|inner::RequestDirectionConfig { common_config }| {
            problems.field("request_direction_config", |problems| common(problems, common_config))
        });
    let library = required(problems, "compressor_library", compressor_library)?;
    let (name, codec) = problems
        .field("compressor_library", |problems| compression::compressor(problems, library))?;
    let library = format!("{name}.{}", compression::stat_prefix(&codec)).into();
    Some(Compressor { library, codec, request, response, choose_first })
}

fn response(problems: &mut Problems, proto: inner::ResponseDirectionConfig) -> ResponseDirection {
    let inner::ResponseDirectionConfig {
        common_config,
        disable_on_etag_header,
        weaken_etag_on_compress,
        remove_accept_encoding_header,
        uncompressible_response_codes,
        status_header_enabled,
    } = proto;
    let mut known = HashSet::new();
    let codes =
        uncompressible_response_codes.into_iter().enumerate().filter_map(|(index, code)| {
            problems.element("uncompressible_response_codes", index, |problems| {
                if !known.insert(code) {
                    problems.reject(format!("{code} stands there already"));
                }
                let valid = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
                if valid.is_none() {
                    problems.reject(format!("{code} is out of range: 200 to 599"));
                }
                valid
            })
        });
    let uncompressible = codes.collect();
    ResponseDirection {
        common: common(problems, common_config),
        legacy_statistics: false,
        disable_on_etag: disable_on_etag_header,
        weaken_etag: weaken_etag_on_compress,
        remove_accept_encoding: remove_accept_encoding_header,
        uncompressible,
        status_header: status_header_enabled,
    }
}

/// What both directions have. Everything has a default.
fn common(problems: &mut Problems, proto: Option<inner::CommonDirectionConfig>) -> Direction {
    #[allow(deprecated)]
    let inner::CommonDirectionConfig {
        enabled: flag,
        min_content_length,
        content_type,
        content_type_matcher,
    } = proto.unwrap_or_default();
    problems.field("common_config", |problems| {
        let types = if content_type_matcher.is_empty() {
            named(content_type)
        } else {
            let matchers = content_type_matcher.into_iter().enumerate();
            let matchers = matchers.filter_map(|(index, proto)| {
                problems.element("content_type_matcher", index, |problems| {
                    matcher::string(problems, proto)
                })
            });
            ContentTypes::Matching(matchers.collect())
        };
        Direction {
            enabled: enabled(problems, "enabled", flag),
            min_length: min_length(number(min_content_length)),
            types,
        }
    })
}

fn enabled(
    problems: &mut Problems,
    name: &str,
    proto: Option<RuntimeFeatureFlag>,
) -> crate::config::runtime::RuntimeFlag {
    proto.and_then(|proto| percent::flag(problems, name, proto)).unwrap_or(true.into())
}

/// As in Envoy zero is no length.
fn min_length(configured: Option<u32>) -> u32 {
    configured.filter(|length| *length > 0).unwrap_or(MIN_LENGTH)
}

fn named(types: Vec<String>) -> ContentTypes {
    ContentTypes::Named(if types.is_empty() {
        TYPES.into_iter().map(Into::into).collect()
    } else {
        types.into_iter().map(Into::into).collect()
    })
}

/// What a route says.
pub(in super::super) fn per_route(
    problems: &mut Problems,
    proto: proto::CompressorPerRoute,
) -> Option<CompressorPerRoute> {
    let proto::CompressorPerRoute { r#override } = proto;
    match r#override {
        None => {
            problems.reject("one of disabled, overrides is required");
            None
        }
        Some(Override::Disabled(true)) => Some(CompressorPerRoute {
            enabled: Some(false),
            remove_accept_encoding: None,
            codec: None,
        }),
        Some(Override::Disabled(false)) => {
            problems.reject_field("disabled", "must be true where it is set");
            None
        }
        Some(Override::Overrides(proto)) => {
            let proto::CompressorOverrides { response_direction_config, compressor_library } =
                proto;
            problems.field("overrides", |problems| {
                let codec = match compressor_library {
                    None => None,
                    Some(library) => {
                        let (_, codec) = problems.field("compressor_library", |problems| {
                            compression::compressor(problems, library)
                        })?;
                        Some(codec)
                    }
                };
                let remove = response_direction_config.and_then(|proto| {
                    let proto::ResponseDirectionOverrides { remove_accept_encoding_header } = proto;
                    remove_accept_encoding_header.map(|value| boolean(Some(value), false))
                });
                Some(CompressorPerRoute {
                    enabled: response_direction_config.map(|_| true),
                    remove_accept_encoding: remove,
                    codec,
                })
            })
        }
    }
}
