//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use outrigger_integration::peers::target;

use crate::scenario::Scenario;

/// What is measured, how long, and where the results go.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Seconds of load in one round.
    pub(crate) seconds: u64,
    /// Rounds with the same processes.
    pub(crate) rounds: usize,
    /// How often everything is started afresh.
    pub(crate) restarts: usize,
    /// A look instead of a measurement.
    pub(crate) quick: bool,
    /// What costs more instructions than before is the new measure.
    pub(crate) accept: bool,
    /// In the order they run.
    pub(crate) scenarios: Vec<Scenario>,
    /// Our program; `None` means the release build, made anew when it is stale.
    pub(crate) binary: Option<PathBuf>,
    /// Folder of the results.
    pub(crate) output: PathBuf,
}

const HELP: &str = "\
Usage: cargo bench -p outrigger-integration --bench side_by_side -- [OPTIONS]

  --scenario NAME   only this one; may be repeated (see --list)
  --quick           under four minutes: fewer, shorter rounds, and not the slowest scenarios
  --rounds N        rounds with the same processes [3]
  --restarts N      fresh starts of all processes [3]
  --seconds N       seconds of load in a round [4]
  --binary FILE     our program, instead of the release build of this tree
  --output FOLDER   where side_by_side.json and .svg go [target]
  --accept          writes the instructions that were counted to benches/instructions.json
  --list            the scenarios";

impl Options {
    pub(crate) fn from_arguments() -> Result<Options> {
        let mut options = Options {
            seconds: 4,
            rounds: 3,
            restarts: 3,
            quick: false,
            accept: false,
            scenarios: Vec::new(),
            binary: None,
            output: target(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => continue,
                "--quick" => {
                    (options.quick, options.seconds, options.rounds, options.restarts) =
                        (true, 1, 3, 1);
                    continue;
                }
                "--accept" => {
                    options.accept = true;
                    continue;
                }
                "--help" | "-h" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                "--list" => {
                    for scenario in Scenario::ALL {
                        println!("{:<16} {}", scenario.name(), scenario.about());
                    }
                    std::process::exit(0);
                }
                _ => {}
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--scenario" => options.scenarios.push(Scenario::named(&value)?),
                "--rounds" => options.rounds = value.parse()?,
                "--restarts" => options.restarts = value.parse()?,
                "--seconds" => options.seconds = value.parse()?,
                "--binary" => options.binary = Some(PathBuf::from(value)),
                "--output" => options.output = PathBuf::from(value),
                _ => bail!("{name} is not an option\n{HELP}"),
            }
        }
        ensure!(
            options.rounds > 0 && options.restarts > 0 && options.seconds > 0,
            "--rounds, --restarts and --seconds are at least 1"
        );
        if options.scenarios.is_empty() {
            let all = Scenario::ALL.iter().copied();
            options.scenarios = all.filter(|it| !options.quick || it.is_quick()).collect();
        }
        Ok(options)
    }
}
