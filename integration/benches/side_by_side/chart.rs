//! A bar chart, as SVG: for each line that may be quoted, every peer as a part of Envoy, and where our target is.

use std::fmt::Write as _;

use crate::measure::{Line, Target, Verdict};
use crate::peer::Peer;

const LEFT: f64 = 270.0;
/// As long as Envoy's bar.
const ONE: f64 = 300.0;
/// Longer bars are cut, their number stands beside them all the same.
const MOST: f64 = 1.8;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
const TOP: f64 = 64.0;

/// Draws.
pub(crate) fn draw(lines: &[Line], machine: &str) -> String {
    let lines: Vec<&Line> = lines.iter().filter(|line| is_quotable(line)).collect();
    let bars = |line: &Line| Peer::ALL.iter().filter(|peer| line.median(**peer).is_some()).count();
    let heights = lines.iter().map(|line| bars(line) as f64 * BAR + GAP);
    let height = TOP + heights.sum::<f64>() + 20.0;
    let width = LEFT + ONE * MOST + 90.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"bold\">Beside Envoy, in one run (Envoy = 1)</text>\n\
         <text x=\"12\" y=\"40\" fill=\"#555\">{}</text>\n",
        escape(machine)
    );
    let mut legend = LEFT;
    for peer in Peer::ALL {
        let _ = writeln!(
            svg,
            "<rect x=\"{legend}\" y=\"46\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"55\">{peer}</text>",
            color(peer),
            legend + 14.0
        );
        legend += 90.0;
    }
    let _ = writeln!(svg, "<text x=\"{legend}\" y=\"55\">| target</text>");
    let mut y = TOP;
    for line in lines {
        let top = y;
        let Some(envoy) = line.median(Peer::Envoy) else { continue };
        for peer in Peer::ALL {
            let Some(value) = line.median(peer) else { continue };
            let ratio = match peer {
                Peer::Outrigger => line.ratio(Peer::Envoy).unwrap_or(value / envoy),
                _ => value / envoy,
            };
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#333\">{ratio:.2}</text>",
                ratio.min(MOST) * ONE,
                BAR - 2.0,
                color(peer),
                LEFT + ratio.min(MOST) * ONE + 4.0,
                y + BAR - 4.0,
            );
            y += BAR;
        }
        let middle = f64::midpoint(top, y) + 3.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escape(&line.name)
        );
        for target in &line.targets {
            if let Target::AtMost(limit, Peer::Envoy) | Target::AtLeast(limit, Peer::Envoy) = target
            {
                let x = LEFT + limit.min(MOST) * ONE;
                let _ = writeln!(
                    svg,
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"black\" stroke-width=\"2\"/>",
                    top - 2.0,
                    y
                );
            }
        }
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

fn is_quotable(line: &Line) -> bool {
    let mut verdicts = line.targets.iter().map(|target| line.verdict(*target));
    line.median(Peer::Envoy).is_some()
        && !line.targets.is_empty()
        && !verdicts.any(|verdict| verdict == Verdict::Scattered)
}

fn color(peer: Peer) -> &'static str {
    match peer {
        Peer::Outrigger => "#d95f02",
        Peer::Envoy => "#7570b3",
        Peer::Haproxy => "#a6a6a6",
        Peer::Nginx => "#c9c9c9",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
