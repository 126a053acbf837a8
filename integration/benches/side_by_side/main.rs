//! Our sidecar beside real Envoy, HAProxy and nginx: in one run, on one machine, with what must be reached.
//!
//! ```text
//! cargo bench -p outrigger-integration --bench side_by_side
//! ```
//!
//! `benches/README.md` says what each line means and how to read it.
//!
//! # Layout
//! - [`options`]: the command line; [`tools`]: programs found, installed or built; [`machine`]: cores and clocks;
//! - [`peer`]: how each proxy is started; [`config`]: what it is told; [`upstream`], [`grpc_echo`]: what stands behind
//!   all of them;
//! - [`running`]: the processes of one peer; [`load`]: what is sent, and that every answer was right;
//! - [`scenario`]: what is measured, one way of measuring a file;
//! - [`xds`], [`resources`]: a discovery server and what it gives, where configuration is measured;
//! - [`measure`]: figures, ratios, targets, scatter; [`report`], [`chart`]: how they are shown.

mod chart;
mod config;
mod grpc_echo;
mod load;
mod machine;
mod measure;
mod options;
mod peer;
mod report;
mod resources;
mod running;
mod scenario;
mod tools;
mod upstream;
mod xds;

use anyhow::{Context, Result};

use crate::options::Options;
use crate::scenario::Bench;
use crate::tools::Tools;
use crate::upstream::Upstream;

fn main() -> Result<()> {
    let options = Options::from_arguments()?;
    let tools = Tools::find(&options)?;
    machine::prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options, &tools))
}

async fn measure(options: &Options, tools: &Tools) -> Result<()> {
    println!("{}, load average {:.1}", machine::description(), machine::load_average());
    let mut lines = Vec::new();
    for scenario in &options.scenarios {
        // Fresh for each: what one leaves behind is not the next one's.
        let upstream = Upstream::start().await?;
        let bench = Bench { options, tools, upstream: &upstream };
        let measured = scenario.run(&bench).await.with_context(|| scenario.name())?;
        println!("\n{}", report::table(&measured));
        lines.extend(measured);
    }
    println!("\n{}", report::table(&lines));
    report::write(&lines, options, tools, &options.output)
}
