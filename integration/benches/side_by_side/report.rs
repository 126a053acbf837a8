//! The report: a table for people, JSON for whoever wants to check it, a chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

use crate::chart;
use crate::config::configs;
use crate::machine;
use crate::measure::{Line, Verdict};
use crate::options::Options;
use crate::peer::Peer;
use crate::tools::Tools;

/// Ours beside theirs, with the ratio and what became of each target.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<34} {:>10} {:>10} {:>10} {:>10}  {:<22} {:>9} {:>7}  verdict",
        "", "outrigger", "envoy", "haproxy", "nginx", "unit", "ratio", "+-",
    );
    for line in lines {
        let _ = write!(text, "{:<34}", line.name);
        for peer in Peer::ALL {
            match line.median(peer) {
                Some(value) => {
                    let _ = write!(text, " {:>10}", number(value));
                }
                None => text.push_str("          -"),
            }
        }
        let _ = write!(text, "  {:<22}", line.unit);
        let scattered =
            line.targets.iter().any(|target| line.verdict(*target) == Verdict::Scattered);
        match line.ratio(Peer::Envoy) {
            // What is not known well enough is not quoted.
            Some(_) if scattered => text.push_str("         ?"),
            Some(ratio) => {
                let _ = write!(text, " {ratio:>9.3}");
            }
            None => text.push_str("         -"),
        }
        match line.scatter(Peer::Envoy) {
            Some(scatter) => {
                let _ = write!(text, " {:>6.1}%", scatter * 100.0);
            }
            None => text.push_str("       -"),
        }
        let verdicts: Vec<String> = line
            .targets
            .iter()
            .map(|target| format!("{} {}", target.describe(), line.verdict(*target).word()))
            .collect();
        let _ = writeln!(text, "  {}", verdicts.join("; "));
    }
    let all = || lines.iter().flat_map(|line| line.targets.iter().map(|it| line.verdict(*it)));
    let count = |verdict| all().filter(|it| *it == verdict).count();
    let _ = writeln!(
        text,
        "{} targets met, {} missed, {} not quoted because the rounds scatter too much (more --rounds and --restarts, or a quieter machine)",
        count(Verdict::Met),
        count(Verdict::Missed),
        count(Verdict::Scattered),
    );
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Writes `side_by_side.json` and `side_by_side.svg`.
pub(crate) fn write(lines: &[Line], options: &Options, tools: &Tools, folder: &Path) -> Result<()> {
    use crate::config::Case;
    fs::create_dir_all(folder)?;
    let cases = [
        ("http1", Case::Http1),
        ("http2", Case::Http2),
        ("grpc", Case::Grpc),
        ("mutual-tls", Case::MutualTls),
        ("pair", Case::Pair),
        ("everything", Case::Everything),
        ("tcp", Case::Tcp),
        ("tls-passthrough", Case::TlsPassthrough),
    ];
    let texts: serde_json::Map<String, Value> = cases
        .into_iter()
        .map(|(name, case)| {
            let peers: serde_json::Map<String, Value> = Peer::ALL
                .into_iter()
                .filter_map(|peer| Some((peer.name().to_owned(), json!(configs(case, peer)?))))
                .collect();
            (name.to_owned(), Value::Object(peers))
        })
        .collect();
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let whole = json!({
        "time": time,
        "machine": machine::description(),
        "load_average": machine::load_average(),
        "versions": tools.versions(),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "restarts": options.restarts,
        "lines": lines.iter().map(Line::to_json).collect::<Vec<_>>(),
        "configurations": texts,
    });
    let json = folder.join("side_by_side.json");
    fs::write(&json, serde_json::to_string_pretty(&whole)?)?;
    let svg = folder.join("side_by_side.svg");
    fs::write(&svg, chart::draw(lines, &machine::description()))?;
    println!("written: {} {}", json.display(), svg.display());
    Ok(())
}
