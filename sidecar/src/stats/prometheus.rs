//! `/stats/prometheus`: the text exposition format, with Envoy's names and labels.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::histogram::{QUANTILES, Snapshot};
use super::registry::{Reading, Registry};
use super::render::{Filter, HistogramForm, full_name};
use super::scope::Scope;

/// The series of one metric, grouped: the format wants them together.
#[derive(Default)]
struct Groups {
    counters: BTreeMap<String, Vec<Series<u64>>>,
    gauges: BTreeMap<String, Vec<Series<u64>>>,
    texts: BTreeMap<String, Vec<Series<String>>>,
    histograms: BTreeMap<String, Vec<Series<Recorded>>>,
}

/// A histogram: everything, the last interval, and the bounds of its buckets.
struct Recorded {
    all: Snapshot,
    interval: Snapshot,
    bounds: Box<[f64]>,
}

/// One series. The labels of its scope are shared by all series of the scope.
struct Series<T> {
    scope: usize,
    tags: Vec<(String, String)>,
    value: T,
}

/// All wanted statistics. Text readouts are there only if asked for, as gauges of value 0 with the text as a label. Of the
/// forms of histograms there are two: buckets, and quantiles of the last interval ([`HistogramForm::Summary`]).
pub(crate) fn render(
    registry: &Registry,
    filter: &Filter,
    form: HistogramForm,
    text_readouts: bool,
) -> String {
    let mut groups = Groups::default();
    let mut scopes: Vec<String> = Vec::new();
    let mut last: Option<Scope> = None;
    registry.visit(&mut |sample| {
        let full = full_name(&sample);
        if !filter.takes(&full, &sample.reading) {
            return;
        }
        let told = registry.settings.default_tags;
        if last.as_ref() != Some(sample.scope) {
            scopes.push(if told { labels(&sample.scope.tags()) } else { String::new() });
            last = Some(sample.scope.clone());
        }
        let scope = scopes.len() - 1;
        let stem = if told { sample.name.stem } else { &full };
        let (own, stem) = registry.settings.tags(&full, stem);
        let of_name = if told { sample.scope.stem() } else { "".into() };
        let name = metric_name(&of_name, &stem);
        let known = sample
            .name
            .tags
            .iter()
            .filter(|_| told)
            .map(|&(tag, value)| (tag.to_owned(), value.to_owned()));
        let own = own.into_iter().map(|(tag, value)| (label_name(&tag), value));
        let mut tags: Vec<(String, String)> = known.chain(own).collect();
        // Envoy's own count where the operator has named another the same.
        let of_scope = if told { sample.scope.tags() } else { Vec::new() };
        tags.retain(|(tag, _)| !of_scope.iter().any(|(other, _)| other == tag));
        tags.dedup_by(|later, earlier| later.0 == earlier.0);
        match sample.reading {
            Reading::Counter { value, .. } => {
                groups.counters.entry(name).or_default().push(Series { scope, tags, value });
            }
            Reading::Gauge { value, .. } => {
                groups.gauges.entry(name).or_default().push(Series { scope, tags, value });
            }
            Reading::Text(text) if text_readouts => {
                let value = text.to_owned();
                groups.texts.entry(name).or_default().push(Series { scope, tags, value });
            }
            Reading::Text(_) => {}
            Reading::Histogram(all) => {
                let interval = sample.interval.cloned().unwrap_or_default();
                let bounds = registry.settings.bounds(&full).into();
                let value = Recorded { all: all.clone(), interval, bounds };
                groups.histograms.entry(name).or_default().push(Series { scope, tags, value });
            }
        }
    });

    let mut out = String::new();
    for (kind, metrics) in [("counter", groups.counters), ("gauge", groups.gauges)] {
        for (name, series) in metrics {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for one in series {
                let labels = one.labels(&scopes, None);
                let _ = writeln!(out, "{name}{{{labels}}} {}", one.value);
            }
        }
    }
    for (name, series) in groups.texts {
        let _ = writeln!(out, "# TYPE {name} gauge");
        for one in series {
            let labels = one.labels(&scopes, Some(("text_value", one.value.clone())));
            let _ = writeln!(out, "{name}{{{labels}}} 0");
        }
    }
    for (name, series) in groups.histograms {
        let quantiles = form == HistogramForm::Summary;
        let kind = if quantiles { "summary" } else { "histogram" };
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for one in series {
            if quantiles {
                summary(&name, &one, &scopes, &mut out);
            } else {
                buckets(&name, &one, &scopes, &mut out);
            }
        }
    }
    out
}

fn buckets(name: &str, series: &Series<Recorded>, scopes: &[String], out: &mut String) {
    let Recorded { all, bounds, .. } = &series.value;
    let count = all.count();
    let mut bucket = |bound: String, value: u64| {
        let labels = series.labels(scopes, Some(("le", bound)));
        let _ = writeln!(out, "{name}_bucket{{{labels}}} {value}");
    };
    for (bound, value) in bounds.iter().zip(all.cumulative(bounds)) {
        bucket(bound.to_string(), value);
    }
    bucket("+Inf".to_owned(), count);
    sum_and_count(name, &series.labels(scopes, None), all, out);
}

fn summary(name: &str, series: &Series<Recorded>, scopes: &[String], out: &mut String) {
    let interval = &series.value.interval;
    let values = interval.quantiles();
    for (at, percent) in QUANTILES.iter().enumerate() {
        // Dividing the decimal digits, and not the number: 99.5 is "0.995".
        let labels = series.labels(scopes, Some(("quantile", per_hundred(*percent))));
        let value = values.map_or_else(|| "nan".to_owned(), |values| digits32(values[at]));
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    }
    sum_and_count(name, &series.labels(scopes, None), interval, out);
}

fn sum_and_count(name: &str, labels: &str, snapshot: &Snapshot, out: &mut String) {
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", digits32(snapshot.sum()));
    let _ = writeln!(out, "{name}_count{{{labels}}} {}", snapshot.count());
}

impl<T> Series<T> {
    /// Inner tags first, then those of the scope, then `extra`.
    fn labels(&self, scopes: &[String], extra: Option<(&'static str, String)>) -> String {
        let own = self.tags.iter().map(|(tag, value)| label(tag, value));
        let scope = scopes.get(self.scope).filter(|labels| !labels.is_empty()).cloned();
        let extra = extra.map(|(tag, value)| label(tag, &value));
        own.chain(scope).chain(extra).collect::<Vec<_>>().join(",")
    }
}

fn labels(tags: &[(&'static str, String)]) -> String {
    tags.iter().map(|(tag, value)| label(tag, value)).collect::<Vec<_>>().join(",")
}

fn label(tag: &str, value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    format!("{tag}=\"{escaped}\"")
}

/// A tag's name as a label: everything but letters, digits and `_` replaced.
fn label_name(tag: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let name: String = tag.chars().map(plain).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// `envoy_` and the stems, with everything but letters, digits and `_` replaced.
fn metric_name(scope: &str, name: &str) -> String {
    let mut metric = String::with_capacity(6 + scope.len() + 1 + name.len());
    metric.push_str("envoy_");
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    metric.extend(scope.chars().map(plain));
    if !scope.is_empty() {
        metric.push('_');
    }
    metric.extend(name.trim_matches('.').chars().map(plain));
    metric
}

/// A percentage as a quantile: `99.5` is `0.995`.
fn per_hundred(percent: f64) -> String {
    // Exact: percentages have at most one decimal.
    let thousandths = (percent * 10.0).round() as u32;
    match thousandths {
        1000 => "1".to_owned(),
        0 => "0".to_owned(),
        thousandths => format!("0.{thousandths:03}").trim_end_matches('0').to_owned(),
    }
}

/// A number with 32 significant digits and without trailing zeros, as C's `%.32g`.
fn digits32(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { value.to_string() };
    }
    let before_point = value.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from(32 - before_point).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_the_digits_of_envoy() {
        assert_eq!(digits32(4.049382716049383), "4.0493827160493829353526962222531");
        assert_eq!(digits32(3.1428571428571432), "3.1428571428571432377907513000537");
        assert_eq!((digits32(2050.0).as_str(), digits32(0.0).as_str()), ("2050", "0"));
    }

    #[test]
    fn quantiles_of_a_summary_are_fractions_of_one() {
        let all: Vec<_> = QUANTILES.iter().map(|percent| per_hundred(*percent)).collect();
        let expected = ["0", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99", "0.995", "0.999", "1"];
        assert_eq!(all, expected);
    }

    #[test]
    fn values_of_labels_are_escaped() {
        assert_eq!(label("t", "a\"b\\c\nd"), r#"t="a\"b\\c\nd""#);
        assert_eq!(metric_name("cluster", "ssl.versions"), "envoy_cluster_ssl_versions");
        assert_eq!(metric_name("", "x"), "envoy_x");
    }
}
