//! What can be changed from outside while the application runs, by plain GET requests:
//! `/fail?rate=0.5`, `/delay?ms=200`, `/version?set=v2`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// Longest delay that can be set.
const MAX_DELAY_MS: u32 = 60_000;

/// The state of the switches.
#[derive(Debug)]
pub(super) struct Switches {
    /// Share of requests answered by 500, in millionths.
    fail_ppm: AtomicU32,
    delay_ms: AtomicU32,
    version: RwLock<String>,
}

impl Switches {
    /// Neither failing nor delaying.
    pub(super) fn new(version: String) -> Self {
        Self {
            fail_ppm: AtomicU32::new(0),
            delay_ms: AtomicU32::new(0),
            version: RwLock::new(version),
        }
    }

    /// Whether the request at hand is to fail.
    pub(super) fn fails_now(&self) -> bool {
        let ppm = self.fail_ppm.load(Ordering::Relaxed);
        ppm > 0 && fastrand::u32(0..1_000_000) < ppm
    }

    /// How long the request at hand is to wait.
    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed).into())
    }

    /// The version to answer with.
    pub(super) fn version(&self) -> String {
        self.version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Acts on the path and query of a switch. `None`: the path is not a switch's. Otherwise what to tell the caller,
    /// an error if the value makes no sense.
    pub(super) fn turn(&self, path: &str, query: Option<&str>) -> Option<Result<String, String>> {
        let turned = match path {
            "/fail" => argument(query, "rate").and_then(|rate| self.set_fail_rate(rate)),
            "/delay" => argument(query, "ms").and_then(|ms| self.set_delay(ms)),
            "/version" => argument(query, "set").and_then(|version| self.set_version(version)),
            _ => return None,
        };
        Some(turned)
    }

    fn set_fail_rate(&self, rate: &str) -> Result<String, String> {
        let rate: f64 = rate
            .parse()
            .ok()
            .filter(|rate| (0.0..=1.0).contains(rate))
            .ok_or_else(|| format!("rate is a number from 0 to 1, not {rate:?}"))?;
        self.fail_ppm.store((rate * 1e6).round() as u32, Ordering::Relaxed);
        Ok(format!("failing {rate} of all requests"))
    }

    fn set_delay(&self, ms: &str) -> Result<String, String> {
        let delay: u32 = ms
            .parse()
            .ok()
            .filter(|ms| *ms <= MAX_DELAY_MS)
            .ok_or_else(|| format!("ms is a whole number up to {MAX_DELAY_MS}, not {ms:?}"))?;
        self.delay_ms.store(delay, Ordering::Relaxed);
        Ok(format!("delaying every request by {delay} ms"))
    }

    fn set_version(&self, version: &str) -> Result<String, String> {
        let valid = !version.is_empty()
            && version.len() <= 63
            && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        if !valid {
            return Err(format!(
                "set is up to 63 letters, digits, dots and hyphens, not {version:?}"
            ));
        }
        version.clone_into(&mut self.version.write().unwrap_or_else(PoisonError::into_inner));
        Ok(format!("version is {version}"))
    }
}

/// The value of one query parameter. Nothing is percent-decoded: no valid value of a switch needs it.
fn argument<'a>(query: Option<&'a str>, name: &str) -> Result<&'a str, String> {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
        .ok_or_else(|| format!("the query parameter {name:?} is missing"))
}
