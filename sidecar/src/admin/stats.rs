//! `/stats` and `/stats/prometheus`.

use std::sync::Arc;

use regex::Regex;

use super::reply::{Parameters, Reply};
use crate::stats::Registry;
use crate::stats::prometheus;
use crate::stats::render::{self, Filter, HistogramForm, Kind};

enum Format {
    Text,
    Json,
    Prometheus,
}

/// `/stats`; with `always_prometheus` `/stats/prometheus`.
pub(super) async fn stats(
    registry: &Arc<Registry>,
    parameters: Parameters,
    always_prometheus: bool,
) -> Reply {
    let wanted = match wanted(&parameters, always_prometheus) {
        Ok(wanted) => wanted,
        Err(reply) => return reply,
    };
    let registry = Arc::clone(registry);
    // With thousands of clusters this takes a while, which discovery need not wait for.
    let rendered = tokio::task::spawn_blocking(move || {
        let (filter, format, form) = wanted;
        match format {
            Format::Text => Reply::text(render::text(&registry, &filter, form)),
            Format::Json => Reply::compact_json(&render::json(&registry, &filter, form)),
            Format::Prometheus => {
                let readouts = parameters.has("text_readouts");
                // Quantiles are not the default here: they cannot be added up.
                let form = match parameters.get("histogram_buckets") {
                    Some("summary") => HistogramForm::Summary,
                    _ => HistogramForm::Cumulative,
                };
                Reply::text(prometheus::render(&registry, &filter, form, readouts))
            }
        }
    });
    rendered.await.unwrap_or_else(|error| {
        Reply::with(http::StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
    })
}

fn wanted(
    parameters: &Parameters,
    always_prometheus: bool,
) -> Result<(Filter, Format, HistogramForm), Reply> {
    let format = match parameters.get("format") {
        _ if always_prometheus => Format::Prometheus,
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some("prometheus") => Format::Prometheus,
        Some(_) => {
            return Err(Reply::bad_request("usage: /stats?format=(json|prometheus|text)\n\n"));
        }
    };
    let form = match parameters.get("histogram_buckets") {
        None | Some("summary") => HistogramForm::Summary,
        Some("cumulative") => HistogramForm::Cumulative,
        Some("disjoint") => HistogramForm::Disjoint,
        Some("detailed") => HistogramForm::Detailed,
        Some(_) => {
            return Err(Reply::bad_request(
                "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n",
            ));
        }
    };
    let is_prometheus = matches!(format, Format::Prometheus);
    if is_prometheus && matches!(form, HistogramForm::Disjoint | HistogramForm::Detailed) {
        return Err(Reply::bad_request("unsupported prometheus histogram bucket mode"));
    }
    // Nothing is hidden here: so it is neither shown on demand nor alone.
    let hidden_only = match parameters.get("hidden") {
        None | Some("include" | "exclude") => false,
        Some("only") => true,
        Some(_) => {
            return Err(Reply::bad_request("usage: /stats?hidden=(include|only|exclude)\n\n"));
        }
    };
    let kind = match parameters.get("type") {
        None | Some("All") => None,
        Some("Counters") => Some(Kind::Counters),
        Some("Gauges") => Some(Kind::Gauges),
        Some("Histograms") => Some(Kind::Histograms),
        Some("TextReadouts") => Some(Kind::TextReadouts),
        Some(_) => return Err(Reply::bad_request("invalid &type= param")),
    };
    let name = match parameters.get("filter").map(Regex::new).transpose() {
        Ok(name) => name,
        Err(error) => return Err(Reply::bad_request(format!("Invalid regex: {error}\n"))),
    };
    let filter = Filter {
        used_only: parameters.has("usedonly"),
        name,
        invert: parameters.has("invert_filter"),
        nothing: hidden_only,
        kind,
    };
    Ok((filter, format, form))
}
