//! Everything that could be seen of one case, as comparable text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use regex::Regex;

use super::Difference;
use crate::bootstrap::Values;
use crate::client::{Outcome, Response, first};
use crate::upstream::Recorded;

/// What is said for a field that one side has and the other has not.
const ABSENT: &str = "<absent>";

/// Facts by step and field.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Observation {
    facts: BTreeMap<(String, String), String>,
}

impl Observation {
    /// Records one fact.
    pub fn fact(&mut self, step: &str, field: &str, value: impl fmt::Display) {
        self.facts.insert((step.to_owned(), field.to_owned()), value.to_string());
    }

    /// Takes over all facts of another.
    pub fn extend(&mut self, other: Observation) {
        self.facts.extend(other.facts);
    }

    /// Records what a client got.
    pub fn outcome(&mut self, step: &str, outcome: &Outcome, values: &Values) {
        match outcome {
            Outcome::Failed(cause) => self.fact(step, "status", format!("failed: {cause}")),
            Outcome::Response(response) => self.response(step, response, values),
        }
    }

    fn response(&mut self, step: &str, response: &Response, values: &Values) {
        self.fact(step, "status", response.status);
        self.fields(step, "header", &response.headers, values);
        self.fields(step, "trailer", &response.trailers, values);
        let coding = first(&response.headers, "content-encoding");
        self.fact(step, "body", decoded(&response.body, coding, values));
        if response.truncated {
            self.fact(step, "truncated", true);
        }
    }

    /// Records what an upstream got. `Host` is the authority in HTTP/1 and not listed again.
    pub fn recorded(
        &mut self,
        step: &str,
        prefix: &str,
        upstream: &str,
        got: &Recorded,
        values: &Values,
    ) {
        let line = format!("{upstream}: {} {} {}", got.method, got.path, got.protocol);
        self.fact(step, prefix, line);
        self.fact(step, &format!("{prefix}.authority"), normal(&got.authority, values));
        let headers: Vec<_> =
            got.headers.iter().filter(|(name, _)| name != "host").cloned().collect();
        self.fields(step, &format!("{prefix}.header"), &headers, values);
        self.fields(step, &format!("{prefix}.trailer"), &got.trailers, values);
        if let Some(facts) = super::check::facts(&got.path, &got.body) {
            for (field, value) in facts {
                self.fact(step, &format!("{prefix}.{field}"), normal(&value, values));
            }
        } else if !got.body.is_empty() {
            let coding = first(&got.headers, "content-encoding");
            let text = decoded(&got.body, coding, values);
            self.fact(step, &format!("{prefix}.body"), text);
        }
        if let Some(tls) = &got.tls {
            let sni = tls.sni.as_deref().unwrap_or(ABSENT);
            let alpn = tls.alpn.as_deref().unwrap_or(ABSENT);
            let text = format!("sni {sni}, alpn {alpn}, certificate {}", tls.client_certificate);
            self.fact(step, &format!("{prefix}.tls"), text);
        }
    }

    /// One fact for each name; several values of a name stay in their order.
    fn fields(&mut self, step: &str, prefix: &str, fields: &[(String, String)], values: &Values) {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, value) in fields {
            let value = match name.as_str() {
                "date" => "<date>".to_owned(),
                "x-envoy-upstream-service-time" => digits(value),
                "x-envoy-expected-rq-timeout-ms" => rest_of_time(value, prefix),
                "x-forwarded-client-cert" => normal(&without_hash(value), values),
                _ => normal(value, values),
            };
            by_name.entry(name).or_default().push(value);
        }
        for (name, values) in by_name {
            self.fact(step, &format!("{prefix}.{name}"), values.join(" | "));
        }
    }

    /// Every fact in which the two differ.
    pub(super) fn differences(&self, ours: &Observation) -> Vec<Difference> {
        let mut keys: Vec<_> = self.facts.keys().chain(ours.facts.keys()).collect();
        keys.sort();
        keys.dedup();
        let value = |side: &Observation, key| {
            side.facts.get(key).cloned().unwrap_or_else(|| ABSENT.to_owned())
        };
        keys.into_iter()
            .map(|key| Difference {
                step: key.0.clone(),
                field: key.1.clone(),
                envoy: value(self, key),
                outrigger: value(ours, key),
            })
            .filter(|difference| difference.envoy != difference.outrigger)
            .collect()
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((step, field), value) in &self.facts {
            writeln!(out, "    {step}: {field} = {value}")?;
        }
        Ok(())
    }
}

/// A body as it can be read: two compressors never make the same of it.
fn decoded(bytes: &[u8], coding: Option<&str>, values: &Values) -> String {
    match coding.map(|coding| (coding, crate::coding::decode(coding, bytes))) {
        None | Some((_, None)) => body(bytes, values),
        Some((coding, Some(plain))) => format!("{coding}: {}", body(&plain, values)),
    }
}

fn body(body: &[u8], values: &Values) -> String {
    if body.len() <= 1000 {
        return normal(&String::from_utf8_lossy(body), values);
    }
    // FNV-1a: enough to tell two bodies apart that nobody forged.
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes, {hash:016x}", body.len())
}

/// Takes out what differs between two runs of one proxy: addresses and random ids.
pub(super) fn normal(text: &str, values: &Values) -> String {
    static UUID: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").ok()
    });
    let text = values.anonymize(text);
    match UUID.as_ref() {
        Some(uuid) => uuid.replace_all(&text, "<uuid>").into_owned(),
        None => text,
    }
}

fn digits(value: &str) -> String {
    let number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if number { "<milliseconds>".to_owned() } else { value.to_owned() }
}

/// What is left of the timeout when a request is sent: less for a later try, and a little less after a failed connect.
fn rest_of_time(value: &str, prefix: &str) -> String {
    match value.parse::<u64>() {
        Ok(_) if !prefix.starts_with("upstream[0]") => "<rest>".to_owned(),
        Ok(rest) if rest > 1000 => (rest.div_ceil(1000) * 1000).to_string(),
        _ => value.to_owned(),
    }
}

/// Certificates are new in each run, and so are their hashes.
fn without_hash(value: &str) -> String {
    let part = |part: &str| {
        let hash = part.strip_prefix("Hash=").filter(|hash| hash.len() == 64);
        hash.map_or_else(|| part.to_owned(), |_| "Hash=<hash>".to_owned())
    };
    value.split(';').map(part).collect::<Vec<_>>().join(";")
}
