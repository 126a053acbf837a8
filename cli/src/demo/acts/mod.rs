//! The acts of `outrigger demo test`: each shows one promise of the mesh on the running demo, and checks it.
//!
//! One act a file, in the order they are played. An act leaves the mesh as it found it.

mod bad_config;
mod canary;
mod control_plane_gone;
mod crash;
mod least_request;
mod live_config;
mod mtls;
mod outlier;
mod rotation;
mod up;

use std::time::Duration;

use anyhow::bail;
use serde_json::{Map, Value};

use super::mesh::Mesh;
use super::progress::Progress;
use crate::load::{Load, Stats};

/// Requests a second of the load that runs while things happen.
pub(super) const RATE: u32 = 200;

/// An act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Up,
    LiveConfig,
    Canary,
    LeastRequest,
    Outlier,
    Crash,
    Mtls,
    BadConfig,
    ControlPlaneGone,
    Rotation,
}

/// All of them, in order.
pub(super) const ACTS: [Act; 10] = [
    Act::Up,
    Act::LiveConfig,
    Act::Canary,
    Act::LeastRequest,
    Act::Outlier,
    Act::Crash,
    Act::Mtls,
    Act::BadConfig,
    Act::ControlPlaneGone,
    Act::Rotation,
];

impl Act {
    /// What stands on its line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::LiveConfig => "live config",
            Self::Canary => "canary",
            Self::LeastRequest => "least request",
            Self::Outlier => "outlier ejection",
            Self::Crash => "crash",
            Self::Mtls => "mTLS",
            Self::BadConfig => "bad config",
            Self::ControlPlaneGone => "control plane gone",
            Self::Rotation => "rotation",
        }
    }

    /// Plays it. Figures are noted as they are known, so that a failure comes with them.
    ///
    /// # Errors
    /// What was not as promised.
    pub(super) async fn play(
        self,
        mesh: &mut Mesh,
        figures: &mut Figures,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let mut stage = Stage { mesh, figures, progress };
        let stage = &mut stage;
        // Boxed: each is a long story, and together they would make one huge future.
        match self {
            Self::Up => Box::pin(up::play(stage)).await,
            Self::LiveConfig => Box::pin(live_config::play(stage)).await,
            Self::Canary => Box::pin(canary::play(stage)).await,
            Self::LeastRequest => Box::pin(least_request::play(stage)).await,
            Self::Outlier => Box::pin(outlier::play(stage)).await,
            Self::Crash => Box::pin(crash::play(stage)).await,
            Self::Mtls => Box::pin(mtls::play(stage)).await,
            Self::BadConfig => Box::pin(bad_config::play(stage)).await,
            Self::ControlPlaneGone => Box::pin(control_plane_gone::play(stage)).await,
            Self::Rotation => Box::pin(rotation::play(stage)).await,
        }
    }
}

/// What an act works with.
struct Stage<'a> {
    mesh: &'a mut Mesh,
    figures: &'a mut Figures,
    progress: &'a Progress,
}

impl Stage<'_> {
    /// Starts the load.
    fn load(&self) -> Load {
        Load::start(self.mesh.plan(RATE))
    }

    /// Sends load for a while and tells what came of it.
    async fn watch(&self, load: &Load, time: Duration) -> Stats {
        let before = load.snapshot();
        tokio::time::sleep(time).await;
        load.snapshot().since(&before)
    }
}

/// What an act measured: words for people, values for programs.
#[derive(Debug, Default)]
pub(super) struct Figures {
    words: Vec<String>,
    values: Map<String, Value>,
}

impl Figures {
    /// One figure for both.
    fn note(&mut self, key: &str, value: impl Into<Value>, words: impl Into<String>) {
        self.words.push(words.into());
        self.values.insert(key.to_owned(), value.into());
    }

    /// Requests and failures of a load, of which there must be none.
    ///
    /// # Errors
    /// With every cause, if there was one; also if there was hardly any load, which would prove nothing.
    fn expect_no_failures(&mut self, key: &str, stats: &Stats) -> anyhow::Result<()> {
        let words = format!("{} requests, {} failed", stats.ended, stats.failed);
        self.note(key, stats.to_json(), words);
        if stats.failed > 0 {
            bail!(
                "{} of {} requests failed: {}",
                stats.failed,
                stats.ended,
                stats.causes_in_words()
            );
        }
        if stats.ended == 0 {
            bail!("no request was sent: nothing is proven");
        }
        Ok(())
    }

    /// `3 revisions, 0 failed`.
    pub(super) fn in_words(&self) -> String {
        self.words.join(", ")
    }

    /// For the report.
    pub(super) fn into_json(self) -> Value {
        Value::Object(self.values)
    }
}
