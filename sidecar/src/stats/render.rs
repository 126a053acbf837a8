//! What of the statistics is printed, and the text and JSON forms of `/stats`.

use regex::Regex;
use serde_json::{Value as Json, json};

use super::histogram::{QUANTILES, Snapshot};
use super::registry::{Reading, Registry, Sample};

/// Which statistics are wanted.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Only those that were ever written.
    pub(crate) used_only: bool,
    /// Only those whose full name matches, anywhere in it.
    pub(crate) name: Option<Regex>,
    /// Only those whose full name does not match.
    pub(crate) invert: bool,
    /// Only those of one kind.
    pub(crate) kind: Option<Kind>,
    /// None at all.
    pub(crate) nothing: bool,
}

/// The kinds of statistics, as `?type=` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Kind {
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

/// How histograms are printed, `?histogram_buckets=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum HistogramForm {
    /// Quantiles.
    #[default]
    Summary,
    /// For each bound the samples at or below it.
    Cumulative,
    /// For each bound the samples between the bound before and it.
    Disjoint,
    /// Every bin.
    Detailed,
}

impl Filter {
    /// Whether a statistic is wanted. `full` is its full name.
    pub(super) fn takes(&self, full: &str, reading: &Reading<'_>) -> bool {
        let (kind, used) = match reading {
            Reading::Counter { used, .. } => (Kind::Counters, *used),
            Reading::Gauge { used, .. } => (Kind::Gauges, *used),
            Reading::Histogram(snapshot) => (Kind::Histograms, !snapshot.is_empty()),
            Reading::Text(text) => (Kind::TextReadouts, !text.is_empty()),
        };
        !self.nothing
            && (used || !self.used_only)
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.name.as_ref().is_none_or(|name| name.is_match(full) != self.invert)
    }
}

/// The full name of a sample.
pub(super) fn full_name(sample: &Sample<'_>) -> String {
    match sample.prefix {
        "" => sample.name.text.to_owned(),
        prefix => format!("{prefix}.{}", sample.name.text),
    }
}

/// `/stats`: texts first, then counters and gauges, then histograms, as Envoy orders them.
pub(crate) fn text(registry: &Registry, filter: &Filter, form: HistogramForm) -> String {
    let (mut texts, mut numbers, mut histograms) = (String::new(), String::new(), String::new());
    registry.visit(&mut |sample| {
        let name = full_name(&sample);
        if !filter.takes(&name, &sample.reading) {
            return;
        }
        match sample.reading {
            Reading::Counter { value, .. } | Reading::Gauge { value, .. } => {
                numbers.push_str(&format!("{name}: {value}\n"));
            }
            Reading::Text(text) => {
                texts.push_str(&format!("{name}: \"{}\"\n", escape_text(text)));
            }
            Reading::Histogram(all) => {
                histograms.push_str(&format!("{name}:"));
                let empty = Snapshot::default();
                let bounds = registry.settings.bounds(&name);
                let interval = sample.interval.unwrap_or(&empty);
                histogram_text(all, interval, form, bounds, &mut histograms);
                histograms.push('\n');
            }
        }
    });
    texts + &numbers + &histograms
}

/// A text readout is one line, whatever is in it.
fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn histogram_text(
    all: &Snapshot,
    interval: &Snapshot,
    form: HistogramForm,
    bounds: &[f64],
    out: &mut String,
) {
    match form {
        HistogramForm::Summary => match summary(all, interval) {
            Some(summary) => out.push_str(&format!(" {summary}")),
            None => out.push_str(" No recorded values"),
        },
        HistogramForm::Cumulative | HistogramForm::Disjoint => {
            if all.is_empty() {
                out.push_str(" No recorded values");
                return;
            }
            let (interval, all) = (interval.cumulative(bounds), all.cumulative(bounds));
            let (mut before_interval, mut before_all) = (0, 0);
            for (at, bound) in bounds.iter().enumerate() {
                let (mut last, mut total) = (interval[at], all[at]);
                if form == HistogramForm::Disjoint {
                    last -= std::mem::replace(&mut before_interval, last);
                    total -= std::mem::replace(&mut before_all, total);
                }
                out.push_str(&format!(" B{}({last},{total})", general(*bound)));
            }
        }
        HistogramForm::Detailed => {
            let Some(summary) = summary(all, interval) else {
                out.push_str(" No recorded values");
                return;
            };
            let bins = |snapshot: &Snapshot| -> String {
                let bins =
                    snapshot.bins().map(|(low, width, count)| format!(" {low},{width}:{count}"));
                bins.collect::<Vec<_>>().join(",")
            };
            out.push_str(&format!(
                "\n  totals={}\n  intervals={}\n  summary={summary}",
                bins(all).trim_start(),
                bins(interval).trim_start(),
            ));
        }
    }
}

/// `P0(interval,cumulative) P25(…) …`; `None` without samples.
fn summary(all: &Snapshot, interval: &Snapshot) -> Option<String> {
    let all = all.quantiles()?;
    let interval = interval.quantiles();
    let quantile = |(at, percent): (usize, &f64)| {
        let last = interval.map_or_else(|| "nan".to_owned(), |values| values[at].to_string());
        format!("P{percent}({last},{})", all[at])
    };
    Some(QUANTILES.iter().enumerate().map(quantile).collect::<Vec<_>>().join(" "))
}

/// A bucket's bound as C's `%g` prints it.
fn general(bound: f64) -> String {
    if bound < 1e6 {
        return bound.to_string();
    }
    let text = format!("{bound:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{mantissa}e+{exponent:0>2}"),
        None => text,
    }
}

/// `/stats?format=json`
pub(crate) fn json(registry: &Registry, filter: &Filter, form: HistogramForm) -> Json {
    let (mut texts, mut numbers, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
    registry.visit(&mut |sample| {
        let name = full_name(&sample);
        if !filter.takes(&name, &sample.reading) {
            return;
        }
        match sample.reading {
            Reading::Counter { value, .. } | Reading::Gauge { value, .. } => {
                numbers.push(json!({"name": name, "value": value}));
            }
            Reading::Text(text) => texts.push(json!({"name": name, "value": text})),
            Reading::Histogram(all) => {
                let empty = Snapshot::default();
                let interval = sample.interval.unwrap_or(&empty);
                let bounds = registry.settings.bounds(&name);
                histograms.push(histogram_json(&name, all, interval, form, bounds));
            }
        }
    });
    let mut stats = texts;
    stats.append(&mut numbers);
    if !histograms.is_empty() {
        stats.push(match form {
            HistogramForm::Summary => json!({"histograms": {
                "supported_quantiles": QUANTILES.map(number),
                "computed_quantiles": histograms,
            }}),
            HistogramForm::Detailed => json!({"histograms": {
                "supported_percentiles": QUANTILES.map(number),
                "details": histograms,
            }}),
            HistogramForm::Cumulative | HistogramForm::Disjoint => {
                json!({"histograms": histograms})
            }
        });
    }
    json!({"stats": stats})
}

fn histogram_json(
    name: &str,
    all: &Snapshot,
    interval: &Snapshot,
    form: HistogramForm,
    bounds: &[f64],
) -> Json {
    let quantiles = || -> Vec<Json> {
        let (all, interval) = (all.quantiles(), interval.quantiles());
        let value = |values: Option<[f64; QUANTILES.len()]>, at: usize| {
            values.map_or(Json::Null, |values| number(values[at]))
        };
        let both = |at| json!({"cumulative": value(all, at), "interval": value(interval, at)});
        (0..QUANTILES.len()).map(both).collect()
    };
    match form {
        HistogramForm::Summary => json!({"name": name, "values": quantiles()}),
        HistogramForm::Detailed => {
            let bins = |snapshot: &Snapshot| -> Vec<Json> {
                let bins = snapshot.bins().map(|(low, width, count)| {
                    json!({"lower_bound": number(low), "width": number(width), "count": count})
                });
                bins.collect()
            };
            json!({
                "name": name, "totals": bins(all), "intervals": bins(interval),
                "percentiles": quantiles(),
            })
        }
        HistogramForm::Cumulative | HistogramForm::Disjoint => {
            let (interval, all) = (interval.cumulative(bounds), all.cumulative(bounds));
            let below = |values: &[u64], at: usize| match (form, at) {
                (HistogramForm::Disjoint, 1..) => values[at] - values[at - 1],
                _ => values[at],
            };
            let bucket = |(at, bound): (usize, &f64)| {
                json!({
                    "upper_bound": number(*bound),
                    "interval": below(&interval, at),
                    "cumulative": below(&all, at),
                })
            };
            let buckets: Vec<Json> = bounds.iter().enumerate().map(bucket).collect();
            json!({"name": name, "buckets": buckets})
        }
    }
}

/// A whole number is printed without a fraction.
fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
