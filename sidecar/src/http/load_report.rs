//! Load reports in the headers or trailers of a response (ORCA, gRFC A51).
//!
//! `endpoint-load-metrics-bin` is the report as base64. `endpoint-load-metrics` begins with how the rest is to be read:
//! `BIN ` as base64, `JSON ` as JSON, `TEXT ` as a list of `NAME:VALUE`. A report with anything in it that cannot be read is
//! none at all, as in Envoy.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName};
use prost::Message;
use serde_json::Value;

use crate::cluster::LoadReport;

const BINARY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
const METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");
const NAMED: &str = "named_metrics.";
/// With padding or, as grpc-go sends it, without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `xds.data.orca.v3.OrcaLoadReport` on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "2")]
    mem_utilization: f64,
    #[prost(btree_map = "string, double", tag = "4")]
    request_cost: BTreeMap<String, f64>,
    #[prost(btree_map = "string, double", tag = "5")]
    utilization: BTreeMap<String, f64>,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(btree_map = "string, double", tag = "8")]
    named_metrics: BTreeMap<String, f64>,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

/// The report in these headers or trailers; `None`: there is none, or it cannot be read.
pub(super) fn in_headers(headers: &HeaderMap) -> Option<LoadReport> {
    if let Some(value) = headers.get(BINARY) {
        return binary(value.as_bytes());
    }
    let value = headers.get(METRICS)?.as_bytes();
    if let Some(encoded) = value.strip_prefix(b"BIN ") {
        binary(encoded)
    } else if let Some(json) = value.strip_prefix(b"JSON ") {
        of_json(json)
    } else {
        text(std::str::from_utf8(value.strip_prefix(b"TEXT ")?).ok()?)
    }
}

fn binary(encoded: &[u8]) -> Option<LoadReport> {
    let bytes = BASE64.decode(encoded).ok().filter(|bytes| !bytes.is_empty())?;
    let Wire {
        cpu_utilization,
        mem_utilization,
        request_cost,
        utilization,
        rps_fractional,
        eps,
        named_metrics,
        application_utilization,
    } = Wire::decode(bytes.as_slice()).ok()?;
    Some(LoadReport {
        cpu_utilization,
        mem_utilization,
        application_utilization,
        rps_fractional,
        eps,
        request_cost,
        utilization,
        named_metrics,
    })
}

fn text(list: &str) -> Option<LoadReport> {
    let mut report = LoadReport::default();
    let mut seen = BTreeSet::new();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, value) = entry.split_once(':')?;
        let value: f64 = value.trim().parse().ok().filter(|value: &f64| value.is_finite())?;
        if !seen.insert(name) {
            return None;
        }
        match name.strip_prefix(NAMED) {
            Some("") => return None,
            Some(name) => drop(report.named_metrics.insert(name.to_owned(), value)),
            None => *field(&mut report, name)? = value,
        }
    }
    Some(report)
}

fn of_json(text: &[u8]) -> Option<LoadReport> {
    let Value::Object(object) = serde_json::from_slice(text).ok()? else { return None };
    let mut report = LoadReport::default();
    for (name, value) in &object {
        let name = snake_case(name);
        let map = match name.as_str() {
            "request_cost" => &mut report.request_cost,
            "utilization" => &mut report.utilization,
            "named_metrics" => &mut report.named_metrics,
            "rps" => continue, // deprecated, and of no use to anybody
            name => {
                *field(&mut report, name)? = json_number(value)?;
                continue;
            }
        };
        for (key, value) in value.as_object()? {
            map.insert(key.clone(), json_number(value)?);
        }
    }
    Some(report)
}

/// A number as proto's JSON has it: also as a text.
fn json_number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    }
}

/// The name of a field in a proto, which JSON may have in either way.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn field<'r>(report: &'r mut LoadReport, name: &str) -> Option<&'r mut f64> {
    Some(match name {
        "cpu_utilization" => &mut report.cpu_utilization,
        "mem_utilization" => &mut report.mem_utilization,
        "application_utilization" => &mut report.application_utilization,
        "rps_fractional" => &mut report.rps_fractional,
        "eps" => &mut report.eps,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(name: &'static str, value: &str) -> Option<LoadReport> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        in_headers(&headers)
    }

    fn expected() -> LoadReport {
        LoadReport {
            cpu_utilization: 0.5,
            rps_fractional: 100.0,
            eps: 2.0,
            named_metrics: [("rif".to_owned(), 4.0)].into(),
            ..LoadReport::default()
        }
    }

    #[test]
    fn a_report_comes_in_one_of_three_forms() {
        let wire = Wire {
            cpu_utilization: 0.5,
            rps_fractional: 100.0,
            eps: 2.0,
            named_metrics: [("rif".to_owned(), 4.0)].into(),
            ..Wire::default()
        };
        let padded = base64::engine::general_purpose::STANDARD.encode(wire.encode_to_vec());
        assert!(padded.ends_with('='), "so that it can be left out");
        let bare = padded.trim_end_matches('=');
        for (name, value) in [
            ("endpoint-load-metrics-bin", padded.clone()),
            ("endpoint-load-metrics-bin", bare.to_owned()),
            ("endpoint-load-metrics", format!("BIN {padded}")),
            (
                "endpoint-load-metrics",
                "TEXT cpu_utilization:0.5, rps_fractional: 100,eps:2,,named_metrics.rif:4".into(),
            ),
            (
                "endpoint-load-metrics",
                r#"JSON {"cpu_utilization":0.5,"rpsFractional":"100","eps":2,"named_metrics":{"rif":4}}"#.into(),
            ),
        ] {
            assert_eq!(of(name, &value), Some(expected()), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_in_full_is_no_report() {
        for value in [
            "cpu_utilization:0.5",
            "text cpu_utilization:0.5",
            "TEXT cpu_utilization:0.5,cpu_utilization:0.5",
            "TEXT cpu_utilization:",
            "TEXT cpu_utilization",
            "TEXT cpu_utilization:much",
            "TEXT cpu_utilization:inf",
            "TEXT cpu_utilization:NaN",
            "TEXT named_metrics.:1",
            "TEXT unknown:1",
            "JSON {",
            "JSON []",
            r#"JSON {"unknown":1}"#,
            r#"JSON {"named_metrics":{"a":"b"}}"#,
            "BIN !",
            "BIN ",
            "",
        ] {
            assert_eq!(of("endpoint-load-metrics", value), None, "{value}");
        }
        assert_eq!(of("endpoint-load-metrics-bin", "////"), None);
        assert_eq!(in_headers(&HeaderMap::new()), None);
    }
}
