//! `outrigger run [SIDECAR OPTIONS] -- COMMAND`: a sidecar and its application as one.
//!
//! The order: sidecar, and when it is ready, the command; when the command has ended, the sidecar drains. Signals go to the
//! command, which decides what they mean; its exit code is ours. A sidecar that crashes is started again. As the first
//! process of a container we also bury orphans that processes of the application leave behind.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::healthcheck::{Url, ask};

/// A sidecar must be ready within this, the time it may wait for its token not counted.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(25);
/// A sidecar drains at most so long when its application has ended.
const DRAIN: Duration = Duration::from_secs(20);
/// Between a crash of the sidecar and its next start.
const RESTART: Duration = Duration::from_secs(1);
/// Exit code when there is no such command, as shells have it; and when it cannot be started.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    sidecar: outrigger_sidecar::cli::Args,
    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs it. Exit codes: that of the command, 128 and the number of the signal that ended it, 126 or 127 if it could not be
/// started, 1 if the sidecar could not, 2 for arguments that make no sense, 5 if the sidecar was not ready in time.
pub(crate) fn main(args: &RunArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Stop::new(1, error.to_string())),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(Stop { code, reason }) => {
            say(&reason);
            ExitCode::from(code)
        }
    }
}

/// Why the command did not run.
struct Stop {
    code: u8,
    reason: String,
}

impl Stop {
    fn new(code: u8, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "outrigger run: {text}");
}

async fn run(args: &RunArgs) -> Result<u8, Stop> {
    let url = Url { address: args.sidecar.admin, path: "/ready".to_owned() };
    if url.address.port() == 0
        || args.sidecar.config_path.is_some()
        || args.sidecar.config_yaml.is_some()
    {
        let reason = "needs the address of the sidecar's admin interface: --admin with a port, and no bootstrap";
        return Err(Stop::new(2, reason));
    }
    let mut signals = signals().map_err(|error| Stop::new(1, error.to_string()))?;
    let mut sidecar = start_sidecar()?;
    let patience = PATIENCE + Duration::from_secs(args.sidecar.join_wait_s);
    tokio::select! {
        ready = ready(&url, patience) => {
            if let Err(last) = ready {
                let _ = sidecar.start_kill();
                return Err(Stop::new(5, format!("the sidecar was not ready within {patience:?}: {last}")));
            }
        }
        ended = sidecar.wait() => {
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(Stop::new(1, format!("the sidecar ended before it was ready ({how})")));
        }
        signal = asked_to_end(&mut signals) => {
            end_sidecar(sidecar).await;
            return Ok(128_u8.saturating_add(u8::try_from(signal.as_raw()).unwrap_or(0)));
        }
    }
    let mut application = start(&args.command)?;
    let code = beside(&mut application, &mut sidecar, &mut signals).await;
    end_sidecar(sidecar).await;
    Ok(code)
}

/// Until the application ends.
async fn beside(
    application: &mut Child,
    sidecar: &mut Child,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
) -> u8 {
    let mut crashed: Option<Instant> = None;
    loop {
        let restart = async {
            match crashed {
                Some(at) => tokio::time::sleep_until(at + RESTART).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = application.wait() => {
                return ended.map_or(1, code_of);
            }
            Some(signal) = signals.recv() => {
                if signal == Signal::CHILD {
                    bury([application.id(), sidecar.id()]);
                } else if !(signal == Signal::INT && std::io::stdin().is_terminal()) {
                    // A terminal sends its ^C to the application itself.
                    forward(application, signal);
                }
            }
            ended = sidecar.wait(), if crashed.is_none() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                say(&format!("the sidecar ended ({how}); it is started again"));
                crashed = Some(Instant::now());
            }
            () = restart => match start_sidecar() {
                Ok(started) => {
                    *sidecar = started;
                    crashed = None;
                }
                Err(Stop { reason, .. }) => {
                    say(&reason);
                    crashed = Some(Instant::now());
                }
            },
        }
    }
}

/// Every signal that means something to an application, and the end of children.
fn signals() -> std::io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let kinds = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::quit(), Signal::QUIT),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
        (SignalKind::window_change(), Signal::WINCH),
        (SignalKind::child(), Signal::CHILD),
    ];
    for (kind, name) in kinds {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(
            async move { while stream.recv().await.is_some() && sender.send(name).is_ok() {} },
        );
    }
    Ok(receiver)
}

/// The first signal that asks us to end, before there is an application that could.
async fn asked_to_end(signals: &mut mpsc::UnboundedReceiver<Signal>) -> Signal {
    loop {
        match signals.recv().await {
            Some(signal) if [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal) => {
                return signal;
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// The sidecar is told what we were told.
fn start_sidecar() -> Result<Child, Stop> {
    let failed =
        |error: std::io::Error| Stop::new(1, format!("the sidecar cannot be started: {error}"));
    let options = std::env::args_os().skip(2).take_while(|argument| argument != "--");
    Command::new(std::env::current_exe().map_err(failed)?)
        .arg("sidecar")
        .args(options)
        .stdin(Stdio::null())
        // A terminal's ^C is for the application.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

fn start(command: &[OsString]) -> Result<Child, Stop> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Stop::new(2, "no command"));
    };
    Command::new(program).args(arguments).kill_on_drop(true).spawn().map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_STARTED,
        };
        Stop::new(code, format!("{}: {error}", program.to_string_lossy()))
    })
}

/// Waits until the sidecar says that it is ready; else its last words.
async fn ready(url: &Url, patience: Duration) -> Result<(), String> {
    let mut last = "it has said nothing yet".to_owned();
    let asking = async {
        loop {
            match ask(url).await {
                Ok((StatusCode::OK, _)) => return,
                Ok((_, body)) => body.trim().clone_into(&mut last),
                Err(error) => last = error,
            }
            sleep(INTERVAL).await;
        }
    };
    let answered = timeout(patience, asking).await;
    answered.map_err(|_| last)
}

fn forward(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended this moment.
        let _ = kill_process(pid, signal);
    }
}

async fn end_sidecar(mut sidecar: Child) {
    forward(&sidecar, Signal::TERM);
    if timeout(DRAIN, sidecar.wait()).await.is_err() {
        say(&format!("the sidecar had not drained after {DRAIN:?} and was killed"));
        let _ = sidecar.kill().await;
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Takes leave of ended processes that are no children of our own making: as the first process of a container we inherit
/// those whose parents are gone. Our own are waited for elsewhere.
fn bury(own: [Option<u32>; 2]) {
    for pid in children().filter(|pid| !own.contains(&u32::try_from(*pid).ok())) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Our children, made or inherited; none where the kernel does not list them.
fn children() -> impl Iterator<Item = i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| {
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
    })
}
