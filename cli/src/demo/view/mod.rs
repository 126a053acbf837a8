//! Bare `outrigger demo`: a mesh of its own, shown while it runs.
//!
//! - [`Moment`]: what is shown, gathered once a second.
//! - [`screen`]: on a terminal; [`lines`]: elsewhere.

mod lines;
mod screen;

use std::time::Duration;

use super::guide::guide;
use super::interrupted;
use super::mesh::Mesh;
use super::progress::Progress;
use crate::client::{Endpoint, Status};
use crate::exit::Outcome;
use crate::load::{Load, Stats};
use crate::output::print;

/// Requests a second.
const RATE: u32 = 200;
/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts a demo, shows it until ^C, and ends it.
pub(super) async fn run() -> Outcome {
    let progress = Progress::new();
    let folder = tempfile::Builder::new().prefix("outrigger-demo-").tempdir()?;
    let start = Mesh::start(folder.path().to_owned(), &progress);
    let mut mesh = tokio::select! {
        mesh = start => mesh?,
        signal = interrupted() => { signal?; return Ok(()) }
    };
    let load = Load::start(mesh.plan(RATE));
    let shown = if screen::possible() {
        screen::show(&mut mesh, &load).await
    } else {
        print(&format!("{}\n\n", guide(&mesh)))?;
        tokio::select! {
            shown = lines::show(&mesh, &load) => shown,
            signal = interrupted() => Ok(signal?),
        }
    };
    progress.show("ending every process");
    load.stop().await;
    let ended = mesh.stop().await;
    progress.clear();
    folder.close()?;
    shown?;
    Ok(ended?)
}

/// What is going on at one moment.
struct Moment {
    /// What the control plane says, or why it says nothing.
    status: Result<Status, String>,
    endpoints: Vec<Endpoint>,
    /// Of the time since the moment before.
    recent: Stats,
    seconds: f64,
}

impl Moment {
    async fn of(mesh: &Mesh, recent: Stats, seconds: f64) -> Self {
        let (status, endpoints) = match mesh.status().await {
            Ok(status) => (Ok(status), all_endpoints(mesh).await.unwrap_or_default()),
            Err(error) => (Err(format!("{error:#}")), Vec::new()),
        };
        Self { status, endpoints, recent, seconds }
    }

    fn requests_per_second(&self) -> f64 {
        self.recent.ended as f64 / self.seconds.max(0.001)
    }

    /// In percent; 100 without any requests.
    fn success(&self) -> f64 {
        let ended = self.recent.ended.max(1) as f64;
        (ended - self.recent.failed as f64) / ended * 100.0
    }

    fn ejected(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.health == "ejected").count()
    }
}

async fn all_endpoints(mesh: &Mesh) -> anyhow::Result<Vec<Endpoint>> {
    let all: crate::client::Items<Endpoint> = mesh.api().get_as("/v1/endpoints").await?;
    Ok(all.items)
}
