//! Command operators whose name or argument has parts.

use crate::config::access_log::{
    CertificateField, DurationUnit, MetadataOf, Operator, TimePoint, WhichPath, Whose,
};

use super::format::optional;

/// `DOWNSTREAM_PEER_SUBJECT` and the like; `None` for what does not read a certificate.
pub(super) fn certificate(name: &str, argument: Option<&str>) -> Option<Operator> {
    let (whose, field) = [
        ("DOWNSTREAM_PEER_", Whose::DownstreamPeer),
        ("DOWNSTREAM_LOCAL_", Whose::DownstreamLocal),
        ("UPSTREAM_PEER_", Whose::UpstreamPeer),
    ]
    .into_iter()
    .find_map(|(prefix, whose)| Some((whose, name.strip_prefix(prefix)?)))?;
    let is_peer = matches!(whose, Whose::DownstreamPeer | Whose::UpstreamPeer);
    let downstream_peer = whose == Whose::DownstreamPeer;
    let format = || optional(argument);
    let field = match field {
        "URI_SAN" => CertificateField::UriSan,
        "DNS_SAN" => CertificateField::DnsSan,
        "IP_SAN" => CertificateField::IpSan,
        "EMAIL_SAN" if matches!(whose, Whose::DownstreamPeer | Whose::DownstreamLocal) => {
            CertificateField::EmailSan
        }
        "SUBJECT" => CertificateField::Subject,
        "ISSUER" if is_peer => CertificateField::Issuer,
        "SERIAL" if downstream_peer => CertificateField::Serial,
        "FINGERPRINT_256" if downstream_peer => CertificateField::Fingerprint256,
        "CERT" if is_peer => CertificateField::Pem,
        "CERT_V_START" if is_peer => {
            return Some(Operator::Certificate(whose, CertificateField::NotBefore(format())));
        }
        "CERT_V_END" if is_peer => {
            return Some(Operator::Certificate(whose, CertificateField::NotAfter(format())));
        }
        _ => return None,
    };
    argument.is_none_or(str::is_empty).then_some(Operator::Certificate(whose, field))
}

/// `FROM:TO:UNIT`
pub(super) fn common_duration(argument: Option<&str>) -> Result<Operator, String> {
    let argument = argument.unwrap_or_default();
    let wrong = || {
        format!(
            "%COMMON_DURATION({argument})% is not supported: expected FROM:TO:UNIT of DS_RX_BEG, DS_RX_END, US_TX_BEG, \
             US_TX_END, US_RX_BEG, US_RX_END, DS_TX_BEG, DS_TX_END and ms, us, ns"
        )
    };
    let point = |name: &str| {
        Ok(match name {
            "DS_RX_BEG" => TimePoint::DownstreamRxBegin,
            "DS_RX_END" => TimePoint::DownstreamRxEnd,
            "US_TX_BEG" => TimePoint::UpstreamTxBegin,
            "US_TX_END" => TimePoint::UpstreamTxEnd,
            "US_RX_BEG" => TimePoint::UpstreamRxBegin,
            "US_RX_END" => TimePoint::UpstreamRxEnd,
            "DS_TX_BEG" => TimePoint::DownstreamTxBegin,
            "DS_TX_END" => TimePoint::DownstreamTxEnd,
            _ => return Err(wrong()),
        })
    };
    let parts: Vec<&str> = argument.split(':').collect();
    let [from, to, unit] = *parts else { return Err(wrong()) };
    let unit = match unit {
        "ms" => DurationUnit::Milliseconds,
        "us" => DurationUnit::Microseconds,
        "ns" => DurationUnit::Nanoseconds,
        _ => return Err(wrong()),
    };
    Ok(Operator::CommonDuration(point(from)?, point(to)?, unit))
}

/// `QUERY:WHICH`, each with a default.
pub(super) fn path(argument: Option<&str>) -> Result<Operator, String> {
    let argument = argument.unwrap_or_default();
    let wrong = || {
        format!(
            "%PATH({argument})% is not supported: expected WQ or NQ, and ORIG, PATH or ORIG_OR_PATH"
        )
    };
    let (query, which) = argument.split_once(':').unwrap_or((argument, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return Err(wrong()),
    };
    let which = match which {
        "ORIG" => WhichPath::Original,
        "PATH" => WhichPath::Current,
        "" | "ORIG_OR_PATH" => WhichPath::OriginalOrCurrent,
        _ => return Err(wrong()),
    };
    Ok(Operator::Path { query, which })
}

/// `NAMESPACE:KEY:...`
pub(super) fn metadata(
    name: &str,
    whose: MetadataOf,
    argument: Option<&str>,
) -> Result<Operator, String> {
    let mut parts = argument.unwrap_or_default().split(':');
    match parts.next().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => {
            Ok(Operator::Metadata(whose, namespace.into(), parts.map(Into::into).collect()))
        }
        None => Err(format!("%{name}% needs the name of a filter: %{name}(NAMESPACE:KEY)%")),
    }
}

/// `TYPE:NAMESPACE:KEY:...`
pub(super) fn metadata_of_type(argument: Option<&str>) -> Result<Operator, String> {
    let argument = argument.unwrap_or_default();
    let (kind, rest) = argument.split_once(':').unwrap_or((argument, ""));
    let whose = match kind {
        "DYNAMIC" => MetadataOf::Request,
        "CLUSTER" => MetadataOf::Cluster,
        "UPSTREAM_HOST" => MetadataOf::Endpoint,
        "ROUTE" => MetadataOf::Route,
        "VIRTUAL_HOST" | "LISTENER" | "LISTENER_FILTER_CHAIN" => {
            return Err(format!(
                "%METADATA({kind})% is not supported by this version of Outrigger: DYNAMIC, CLUSTER, UPSTREAM_HOST, ROUTE"
            ));
        }
        _ => return Err(format!("%METADATA({argument})%: {kind:?} is not a type of metadata")),
    };
    metadata("METADATA", whose, Some(rest))
}

/// Nothing, `ORIG` or `DECODED`
pub(super) fn query_params(argument: Option<&str>) -> Result<Operator, String> {
    match argument {
        None | Some("" | "ORIG") => Ok(Operator::QueryParams { decoded: false }),
        Some("DECODED") => Ok(Operator::QueryParams { decoded: true }),
        Some(other) => {
            Err(format!("%QUERY_PARAMS({other})% is not supported: expected ORIG or DECODED"))
        }
    }
}

/// `KEY` or `KEY:PLAIN` or `KEY:TYPED`
pub(super) fn filter_state(argument: Option<&str>) -> Result<Operator, String> {
    let argument = argument.unwrap_or_default();
    let (key, kind) = argument.split_once(':').unwrap_or((argument, "TYPED"));
    let quoted = match kind {
        "PLAIN" => false,
        "TYPED" => true,
        _ => {
            return Err(format!(
                "%FILTER_STATE({argument})% is not supported: expected KEY, KEY:PLAIN or KEY:TYPED"
            ));
        }
    };
    if key.is_empty() {
        return Err("%FILTER_STATE% needs a key: expected KEY, KEY:PLAIN or KEY:TYPED".to_owned());
    }
    Ok(Operator::FilterState { key: key.into(), quoted })
}
