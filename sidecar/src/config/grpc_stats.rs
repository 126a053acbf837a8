//! Statistics of gRPC calls.

use std::collections::{HashMap, HashSet};

/// A validated `grpc_stats.v3.FilterConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcStats {
    /// Which calls are counted under the name of their method.
    pub methods: GrpcMethods,
    /// Where the names come from requests, dots in the name of a service are underscores.
    pub replace_dots: bool,
    /// The time between the end of a request and the end of its response is recorded.
    pub upstream_time: bool,
    /// How many messages there were is noted in the filter state, under the name of the filter.
    pub emit_filter_state: bool,
}

/// Which calls are counted under the name of their method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcMethods {
    /// All.
    All,
    /// These, by service; the others are counted together.
    Listed(HashMap<Box<str>, HashSet<Box<str>>>),
}
