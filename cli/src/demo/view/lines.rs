//! One plain line a second, for pipes and logs.

use tokio::time::Instant;

use super::{INTERVAL, Moment};
use crate::demo::mesh::Mesh;
use crate::exit::Failure;
use crate::load::Load;
use crate::output::print;

/// Prints until dropped.
pub(super) async fn show(mesh: &Mesh, load: &Load) -> Result<(), Failure> {
    let mut before = load.snapshot();
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = load.snapshot();
        let moment = Moment::of(mesh, now.since(&before), since.elapsed().as_secs_f64()).await;
        (before, since) = (now, Instant::now());
        print(&line(&moment))?;
    }
}

fn line(moment: &Moment) -> String {
    let revision = match &moment.status {
        Ok(status) => format!("revision {}", status.revision),
        Err(_) => "no control plane".to_owned(),
    };
    format!(
        "{revision}  {:.0} rps  success {:.1} %  p50 {:.1} ms  p99 {:.1} ms  {} endpoints, {} ejected\n",
        moment.requests_per_second(),
        moment.success(),
        moment.recent.percentile_ms(50.0),
        moment.recent.percentile_ms(99.0),
        moment.endpoints.len(),
        moment.ejected(),
    )
}
