//! Figures, their targets, and whether they may be quoted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::peer::Peer;

/// A line whose ratio is known no better than to this part of itself (one standard error of the median) is not quoted.
const SCATTER: f64 = 0.07;

/// One line of the report: the same figure of all peers, round by round.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Which scenario, and which figure of it.
    pub(crate) name: String,
    /// What the figure is, and its unit.
    pub(crate) unit: &'static str,
    /// The figures in the order they were taken: those at the same place belong together.
    pub(crate) rounds: BTreeMap<Peer, Vec<f64>>,
    /// What is to be reached.
    pub(crate) targets: Vec<Target>,
}

/// What a figure of ours must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// At most so many times that of the peer.
    AtMost(f64, Peer),
    /// At least so many times that of the peer.
    AtLeast(f64, Peer),
    /// At most this, in the line's unit.
    Below(f64),
    /// At least this, in the line's unit.
    Above(f64),
}

/// What became of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The rounds scatter too much to say.
    Scattered,
    /// The other figure is not there.
    Unknown,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Scattered => "scattered",
            Verdict::Unknown => "-",
        }
    }
}

impl Line {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str) -> Line {
        Line { name: name.into(), unit, rounds: BTreeMap::new(), targets: Vec::new() }
    }

    #[must_use]
    pub(crate) fn target(mut self, target: Target) -> Line {
        self.targets.push(target);
        self
    }

    pub(crate) fn add(&mut self, peer: Peer, value: f64) {
        self.rounds.entry(peer).or_default().push(value);
    }

    /// The median of a peer's rounds.
    pub(crate) fn median(&self, peer: Peer) -> Option<f64> {
        self.rounds.get(&peer).and_then(|values| median(values))
    }

    /// Ours by that of `peer`, of each round: what disturbs both at the same time is not in it.
    fn ratios(&self, peer: Peer) -> Vec<f64> {
        let (Some(ours), Some(theirs)) =
            (self.rounds.get(&Peer::Outrigger), self.rounds.get(&peer))
        else {
            return Vec::new();
        };
        ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
    }

    /// The median of the rounds' ratios.
    pub(crate) fn ratio(&self, peer: Peer) -> Option<f64> {
        median(&self.ratios(peer))
    }

    /// How well that is known: one standard error, as a part of it. `None` below three rounds.
    pub(crate) fn scatter(&self, peer: Peer) -> Option<f64> {
        scatter(&self.ratios(peer))
    }

    pub(crate) fn verdict(&self, target: Target) -> Verdict {
        let (value, spread, met): (_, _, Box<dyn Fn(f64) -> bool>) = match target {
            Target::AtMost(limit, peer) => {
                (self.ratio(peer), self.scatter(peer), Box::new(move |it| it <= limit))
            }
            Target::AtLeast(limit, peer) => {
                (self.ratio(peer), self.scatter(peer), Box::new(move |it| it >= limit))
            }
            Target::Below(limit) | Target::Above(limit) => {
                let ours = self.rounds.get(&Peer::Outrigger);
                let spread = ours.and_then(|values| scatter(values));
                let is_below = matches!(target, Target::Below(_));
                let met = move |it: f64| if is_below { it <= limit } else { it >= limit };
                (self.median(Peer::Outrigger), spread, Box::new(met))
            }
        };
        let Some(value) = value else { return Verdict::Unknown };
        if spread.is_some_and(|spread| spread > SCATTER) {
            return Verdict::Scattered;
        }
        if met(value) { Verdict::Met } else { Verdict::Missed }
    }

    pub(crate) fn to_json(&self) -> Value {
        let peers: BTreeMap<&str, Value> = self
            .rounds
            .iter()
            .map(|(peer, values)| {
                let facts = json!({
                    "median": self.median(*peer), "rounds": values,
                    "ours_by_theirs": self.ratio(*peer), "standard_error": self.scatter(*peer),
                });
                (peer.name(), facts)
            })
            .collect();
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| json!({"target": target.describe(), "verdict": self.verdict(*target).word()}))
            .collect();
        json!({"name": self.name, "unit": self.unit, "peers": peers, "targets": targets})
    }
}

impl Target {
    /// As in the report.
    pub(crate) fn describe(self) -> String {
        match self {
            Target::AtMost(limit, peer) => format!("<= {limit} x {peer}"),
            Target::AtLeast(limit, peer) => format!(">= {limit} x {peer}"),
            Target::Below(limit) => format!("<= {limit}"),
            Target::Above(limit) => format!(">= {limit}"),
        }
    }
}

/// The middle of `values`.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The standard error of the median by the distance between the quartiles, as a part of the median: outliers, of which
/// a shared machine has many, do not count for more than their number.
fn scatter(values: &[f64]) -> Option<f64> {
    let count = values.len();
    if count < 3 {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = part * (count - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        sorted[low] + (sorted[high] - sorted[low]) * place.fract()
    };
    let deviation = (at(0.75) - at(0.25)) / 1.349;
    Some(1.253 * deviation / (count as f64).sqrt() / at(0.5).abs())
}
