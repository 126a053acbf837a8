//! `envoy.filters.http.decompressor`

use http::HeaderName;
use outrigger_proto::envoy::extensions::filters::http::decompressor::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::decompressor::v3::decompressor as inner;

use crate::config::Problems;
use crate::config::decompressor::{Coding, Decompressor, Unpacked};

use super::super::common::{boolean, required};
use super::super::{decompression, percent};

/// The filter's own configuration.
pub(in super::super) fn filter(
    problems: &mut Problems,
    proto: proto::Decompressor,
) -> Option<Decompressor> {
    let proto::Decompressor {
        decompressor_library,
        request_direction_config,
        response_direction_config,
    } = proto;
    let inner::RequestDirectionConfig { common_config, advertise_accept_encoding } =
        request_direction_config.unwrap_or_default();
    let request =
        problems.field("request_direction_config", |problems| direction(problems, common_config));
    let inner::ResponseDirectionConfig { common_config } =
        response_direction_config.unwrap_or_default();
    let response =
        problems.field("response_direction_config", |problems| direction(problems, common_config));
    let library = required(problems, "decompressor_library", decompressor_library)?;
    let (name, coding) = problems
        .field("decompressor_library", |problems| decompression::library(problems, library))?;
    let mut trailer = |what: &str| {
        let text = format!("x-envoy-decompressor-{name}-{what}-bytes");
        let header = HeaderName::from_bytes(text.as_bytes()).ok();
        if header.is_none() {
            problems.reject_field(
                "decompressor_library.name",
                format!("{name:?} cannot be a part of a header's name"),
            );
        }
        header
    };
    let (compressed_bytes, uncompressed_bytes) = (trailer("compressed"), trailer("uncompressed"));
    let prefix = match coding {
        Coding::Gzip { .. } => "gzip",
        Coding::Brotli => "brotli",
        Coding::Zstd(_) => "zstd",
    };
    Some(Decompressor {
        library: format!("{name}.{prefix}").into(),
        coding,
        request,
        response,
        advertise: boolean(advertise_accept_encoding, true),
        compressed_bytes: compressed_bytes?,
        uncompressed_bytes: uncompressed_bytes?,
    })
}

fn direction(problems: &mut Problems, proto: Option<inner::CommonDirectionConfig>) -> Unpacked {
    let inner::CommonDirectionConfig { enabled, ignore_no_transform_header } =
        proto.unwrap_or_default();
    problems.field("common_config", |problems| Unpacked {
        enabled: enabled
            .and_then(|proto| percent::flag(problems, "enabled", proto))
            .unwrap_or(true.into()),
        ignore_no_transform: ignore_no_transform_header,
    })
}
