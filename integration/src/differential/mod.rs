//! The same bootstrap and the same requests, through real Envoy and through our sidecar.
//!
//! [`case`] is what a test writes: a [`Group`] is one bootstrap with the cases that use it. [`world`] is one proxy with
//! its upstreams, running. [`observation`] is everything that could be seen of one case, as comparable text.
//! [`accepted`] reads the differences that we keep. [`run`] puts them together.

mod accepted;
mod case;
mod check;
mod observation;
mod world;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

pub(crate) use accepted::matches;
pub use accepted::{Accepted, Difference};
pub use case::{Case, Group, UpstreamKind};
pub use observation::Observation;
pub use world::World;

use crate::peers::peers;
use crate::proxy::Kind;

/// Runs every case of a group through both proxies and compares.
///
/// Three variables help while working on it: `CASES=TEXT` runs only cases whose name contains TEXT (and then does not ask
/// whether each accepted difference still occurs), `PROXIES=envoy` runs Envoy alone, which checks the cases themselves,
/// `OBSERVATIONS=DIR` writes everything that was seen to `DIR/GROUP.PROXY.txt`.
///
/// # Errors
/// A case does not do through Envoy what it says, the proxies differ in a way that is not accepted, or an accepted
/// difference no longer occurs. The message lists all of it.
pub async fn run(group: Group) -> Result<()> {
    if peers().is_none() {
        return Ok(());
    }
    let started = Instant::now();
    let filter = std::env::var("CASES").unwrap_or_default();
    let both = std::env::var("PROXIES").map_or(true, |only| only != "envoy")
        && Kind::Outrigger.is_runnable();
    let cases: Vec<&Case> = group.cases.iter().filter(|case| case.name.contains(&filter)).collect();
    let mut problems = String::new();

    let envoy = observe(&group, &cases, Kind::Envoy, &mut problems).await?;
    if !both {
        if problems.is_empty() {
            eprintln!("{}: {} cases do through Envoy what they say", group.name, cases.len());
            return Ok(());
        }
        bail!("{}:\n{problems}", group.name);
    }
    if let Some(field) = group.unsupported {
        let refusal = match World::start(&group, Kind::Outrigger).await {
            Ok(_) => bail!("{}: {field} is supported now; compare", group.name),
            Err(error) => format!("{error:#}"),
        };
        if !refusal.contains(&format!("{field}: not supported")) || !problems.is_empty() {
            bail!("{}: {field} is not named:\n{refusal}\n{problems}", group.name);
        }
        eprintln!("{}: {} cases wait for {field}", group.name, cases.len());
        return Ok(());
    }
    let ours = observe(&group, &cases, Kind::Outrigger, &mut problems).await?;

    let mut accepted = Accepted::read(group.name)?;
    let mut kept = 0;
    for (case, (envoy, ours)) in cases.iter().zip(envoy.iter().zip(&ours)) {
        let (Some(envoy), Some(ours)) = (envoy, ours) else { continue };
        let differences: Vec<Difference> = envoy.differences(ours);
        let total = differences.len();
        let left: Vec<Difference> = differences
            .into_iter()
            .filter(|difference| !accepted.covers(case.name, difference))
            .collect();
        kept += total - left.len();
        if !left.is_empty() {
            let _ = writeln!(problems, "  {}/{} differs:", group.name, case.name);
        }
        for difference in left {
            let _ = writeln!(problems, "{difference}");
        }
    }
    if filter.is_empty() {
        for stale in accepted.unused() {
            let _ = writeln!(problems, "  accepted difference no longer occurs: {stale}");
        }
    }
    if !problems.is_empty() {
        bail!("{}:\n{problems}", group.name);
    }
    let (name, count, took) = (group.name, cases.len(), started.elapsed());
    eprintln!("{name}: {count} cases equal, {kept} accepted differences, {took:.1?}");
    Ok(())
}

/// Runs the cases through one proxy. A case that fails is a problem and gives no observation.
async fn observe(
    group: &Group,
    cases: &[&Case],
    kind: Kind,
    problems: &mut String,
) -> Result<Vec<Option<Observation>>> {
    let mut world = World::start(group, kind).await.with_context(|| format!("start {kind}"))?;
    let mut observations = Vec::new();
    for case in cases {
        let result = case.run(&world).await;
        world.settle();
        match result {
            Ok(observation) => observations.push(Some(observation)),
            Err(error) => {
                let _ =
                    writeln!(problems, "  {}/{} through {kind}: {error:#}", group.name, case.name);
                observations.push(None);
            }
        }
        if let Some(status) = world.proxy.process().exit_status()? {
            bail!(
                "{kind} ended with {status} in case {}:\n{}",
                case.name,
                world.proxy.process().tail()
            );
        }
    }
    if let Some(folder) = std::env::var_os("OBSERVATIONS") {
        let mut text = String::new();
        for (case, observation) in cases.iter().zip(&observations) {
            let _ = writeln!(text, "{}/{}", group.name, case.name);
            let _ = observation.iter().try_for_each(|seen| write!(text, "{seen}"));
        }
        fs::write(Path::new(&folder).join(format!("{}.{kind}.txt", group.name)), text)?;
    }
    Ok(observations)
}
