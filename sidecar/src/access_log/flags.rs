//! Response flags: what went wrong with a request, in Envoy's short names.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of Envoy's response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ResponseFlags(u32);

macro_rules! flags {
    ($($name:ident = $short:literal, $long:literal;)*) => {
        flags!(@constants 0u32; $($name = $short, $long;)*);
        /// Short and long names, by bit, in the order in which Envoy prints them.
        const NAMES: &[(&str, &str)] = &[$(($short, $long)),*];
    };
    (@constants $bit:expr; $name:ident = $short:literal, $long:literal; $($rest:tt)*) => {
        impl ResponseFlags {
            #[doc = concat!("`", $short, "`, ", $long, ".")]
            #[allow(dead_code)] // the table is Envoy's, whole: logs of any version of it can be compared
            pub(crate) const $name: Self = Self(1 << $bit);
        }
        flags!(@constants $bit + 1; $($rest)*);
    };
    (@constants $bit:expr;) => {};
}

flags! {
    FAILED_LOCAL_HEALTH_CHECK = "LH", "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM = "UH", "NoHealthyUpstream";
    UPSTREAM_REQUEST_TIMEOUT = "UT", "UpstreamRequestTimeout";
    LOCAL_RESET = "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = "UR", "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_FAILURE = "UF", "UpstreamConnectionFailure";
    UPSTREAM_CONNECTION_TERMINATION = "UC", "UpstreamConnectionTermination";
    UPSTREAM_OVERFLOW = "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = "NR", "NoRouteFound";
    DELAY_INJECTED = "DI", "DelayInjected";
    FAULT_INJECTED = "FI", "FaultInjected";
    RATE_LIMITED = "RL", "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE = "UAEX", "UnauthorizedExternalService";
    RATE_LIMIT_SERVICE_ERROR = "RLSE", "RateLimitServiceError";
    DOWNSTREAM_CONNECTION_TERMINATION = "DC", "DownstreamConnectionTermination";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = "URX", "UpstreamRetryLimitExceeded";
    STREAM_IDLE_TIMEOUT = "SI", "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS = "IH", "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR = "DPE", "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED = "UMSDR", "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE_FILTER = "RFCF", "ResponseFromCacheFilter";
    NO_FILTER_CONFIG_FOUND = "NFCF", "NoFilterConfigFound";
    DURATION_TIMEOUT = "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = "UPE", "UpstreamProtocolError";
    NO_CLUSTER_FOUND = "NC", "NoClusterFound";
    OVERLOAD_MANAGER = "OM", "OverloadManager";
    DNS_RESOLUTION_FAILED = "DF", "DnsResolutionFailed";
    DROP_OVERLOAD = "DO", "DropOverLoad";
    DOWNSTREAM_REMOTE_RESET = "DR", "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD = "UDO", "UnconditionalDropOverload";
}

impl ResponseFlags {
    /// No flag.
    pub(crate) const NONE: Self = Self(0);

    /// Adds flags.
    pub(crate) fn insert(&mut self, flags: Self) {
        self.0 |= flags.0;
    }

    /// Whether any of `flags` is set.
    pub(crate) fn intersects(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// The flag of this short name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().position(|(short, _)| *short == name).map(|bit| Self(1 << bit))
    }

    /// Whether none is set.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names of what is set.
    pub(crate) fn names(self, long: bool) -> impl Iterator<Item = &'static str> {
        let is_set = move |&(bit, _): &(usize, _)| self.0 & (1 << bit) != 0;
        let name = move |(short_name, long_name)| if long { long_name } else { short_name };
        NAMES.iter().copied().enumerate().filter(is_set).map(move |(_, names)| name(names))
    }
}

impl BitOr for ResponseFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.insert(other);
    }
}

/// Short names joined with commas; `-` for none.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (at, name) in self.names(false).enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_the_order_of_envoy_and_none_is_a_dash() {
        let flags = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED
            | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        assert_eq!(flags.to_string(), "UF,URX");
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        assert!(flags.intersects(ResponseFlags::UPSTREAM_CONNECTION_FAILURE));
        assert!(!flags.intersects(ResponseFlags::NO_ROUTE_FOUND));
    }
}
