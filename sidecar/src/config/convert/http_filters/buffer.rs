//! `envoy.filters.http.buffer`

use outrigger_proto::envoy::extensions::filters::http::buffer::v3 as proto;
use outrigger_proto::envoy::extensions::filters::http::buffer::v3::buffer_per_route::Override;

use crate::config::Problems;

use super::super::common::{number_in, required};

/// The most bytes that a body may have.
pub(in super::super) fn filter(problems: &mut Problems, proto: proto::Buffer) -> Option<u32> {
    let proto::Buffer { max_request_bytes } = proto;
    let max = required(problems, "max_request_bytes", max_request_bytes)?;
    number_in(problems, "max_request_bytes", Some(max), 1..=u32::MAX)
}

/// `Some(None)`: no buffering here.
pub(in super::super) fn per_route(
    problems: &mut Problems,
    proto: proto::BufferPerRoute,
) -> Option<Option<u32>> {
    let proto::BufferPerRoute { r#override } = proto;
    match r#override {
        None => {
            problems.reject("one of disabled, buffer is required");
            None
        }
        Some(Override::Disabled(true)) => Some(None),
        Some(Override::Disabled(false)) => {
            problems.reject_field("disabled", "must be true where it is set");
            None
        }
        Some(Override::Buffer(proto)) => {
            problems.field("buffer", |problems| filter(problems, proto)).map(Some)
        }
    }
}
