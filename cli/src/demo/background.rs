//! `demo up` and `demo down`: a demo that outlives the command which started it.
//!
//! `up` starts a supervisor in a session of its own, which is the parent of every process of the demo and listens on a
//! socket in the state folder. `down` asks through that socket; when the supervisor is gone, so is everything.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

use super::guide::guide;
use super::interrupted;
use super::mesh::Mesh;
use super::progress::Progress;
use crate::exit::{Failure, Outcome};
use crate::load::Load;
use crate::output::print;

/// Requests a second that keep the demo's figures moving.
const RATE: u32 = 20;
/// What the supervisor says last on its standard output when all is up.
const READY: &str = "ready";
/// What `down` says to the supervisor.
const DOWN: &[u8; 5] = b"down\n";
/// How long `down` waits.
const DOWN_PATIENCE: Duration = Duration::from_secs(60);

/// Starts a supervisor, waits until its demo is up, and says what can be done with it.
pub(super) async fn up() -> Outcome {
    let state = state_folder();
    if UnixStream::connect(socket(&state)).await.is_ok() {
        return Err(Failure::Error(
            "a demo is running already; end it with `outrigger demo down`".to_owned(),
        ));
    }
    remove(&state)?;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&state)
        .with_context(|| state.display().to_string())?;
    let log = state.join("supervisor.log");
    let errors = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut supervisor = Command::new(std::env::current_exe()?)
        .args(["demo", "supervise", "--state"])
        .arg(&state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .context("start the supervisor")?;
    let progress = Progress::new();
    progress.show("starting a mesh");
    let mut said = Vec::new();
    if let Some(stdout) = supervisor.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line?,
                signal = interrupted() => {
                    signal?;
                    // In its own session it has not got the signal; its processes end with it.
                    supervisor.kill().await?;
                    remove(&state)?;
                    return Err(Failure::Error("interrupted".to_owned()));
                }
            };
            let Some(line) = line else { break };
            if line == READY {
                progress.clear();
                let text = said.join("\n");
                return print(&format!("{text}\n\nend it with: outrigger demo down\n"));
            }
            said.push(line);
        }
    }
    progress.clear();
    let status = supervisor.wait().await?;
    let words = std::fs::read_to_string(&log).unwrap_or_default();
    remove(&state)?;
    Err(Failure::Error(format!("the demo did not start ({status})\n{}", words.trim_end())))
}

/// Ends the demo that `up` started; none is no error.
pub(super) async fn down() -> Outcome {
    let state = state_folder();
    let mut stream = match UnixStream::connect(socket(&state)).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            // A supervisor that was killed took its processes with it, but not its folder.
            remove(&state)?;
            return print("no demo is running\n");
        }
        Err(error) => return Err(Failure::Error(format!("{}: {error}", state.display()))),
    };
    stream.write_all(DOWN).await.context("ask the supervisor")?;
    let mut said = String::new();
    match tokio::time::timeout(DOWN_PATIENCE, stream.read_to_string(&mut said)).await {
        Ok(read) => read.context("the supervisor's answer")?,
        Err(_) => {
            return Err(Failure::Timeout(format!(
                "the demo did not end within {DOWN_PATIENCE:?}; its state is in {}",
                state.display()
            )));
        }
    };
    match said.trim() {
        "" => print("the demo is down\n"),
        problem => Err(Failure::Error(problem.to_owned())),
    }
}

/// Runs a demo until `down`, or a signal, ends it.
pub(super) async fn supervise(state: PathBuf) -> Outcome {
    // The terminal `up` was called from may go away.
    rustix::process::setsid().context("a session of its own")?;
    let listener = UnixListener::bind(socket(&state)).context("the supervisor's socket")?;
    let mesh = Mesh::start(state.clone(), &Progress::silent()).await?;
    let load = Load::start(mesh.plan(RATE));
    print(&format!("{}\n{READY}\n", guide(&mesh)))?;
    let caller = tokio::select! {
        caller = asked_to_end(&listener) => Some(caller?),
        signal = interrupted() => { signal?; None }
    };
    load.stop().await;
    let ended = mesh.stop().await;
    remove(&state)?;
    if let Some(mut caller) = caller {
        if let Err(error) = &ended {
            caller.write_all(format!("{error:#}").as_bytes()).await?;
        }
        // Closed by the system when this process has ended, and not before: that is what `down` waits for.
        std::mem::forget(caller);
    }
    Ok(ended?)
}

/// Waits for somebody who asks for the end. Others only look whether somebody is here: `up` does.
async fn asked_to_end(listener: &UnixListener) -> std::io::Result<UnixStream> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut said = [0; DOWN.len()];
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut said));
        if matches!(read.await, Ok(Ok(_))) && said == *DOWN {
            return Ok(stream);
        }
    }
}

/// One a user: `$XDG_RUNTIME_DIR/outrigger-demo`, or a folder with the user's id among the temporary ones.
fn state_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder).join("outrigger-demo"),
        _ => {
            let user = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("outrigger-demo-{user}"))
        }
    }
}

fn socket(state: &Path) -> PathBuf {
    state.join("supervisor.sock")
}

/// Removes a state folder; that it is not there is no error, that it is somebody else's is one.
fn remove(state: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(state) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| state.display().to_string()),
        Ok(found) if !found.is_dir() => bail!("{} is no folder", state.display()),
        Ok(_) => {}
    }
    std::fs::remove_dir_all(state).with_context(|| format!("remove {}", state.display()))
}
