//! A child process: spoken to by lines, output kept line by line, killed by its id when dropped, the end of its log shown.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How much of a log is shown.
const LAST_LINES: usize = 60;

/// Envoy quotes whole configurations; the beginning of such a line tells enough.
const LINE_LENGTH: usize = 1000;

/// A running child process.
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts `command`; both outputs are captured.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name}: {command:?}"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let out = child.stdout.take().map(|out| collect(out, &log));
        let err = child.stderr.take().map(|err| collect(err, &log));
        let readers = out.into_iter().chain(err).collect();
        let input = child.stdin.take();
        Ok(Process { name: name.to_owned(), child, input, log, readers })
    }

    /// The id the system knows it by.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The name given at start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every line written so far to standard output and standard error, as they came in.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// It no longer reads.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("no standard input")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(id).context("process id 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not know the process.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {limit:?}", self.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a line of output that contains `text` and returns it.
    ///
    /// # Errors
    /// The process ends, or `limit` passes, without it.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // The order matters: lines written just before the end count.
            let ended = self.exit_status()?;
            if ended.is_some() {
                self.read_to_the_end();
            }
            if let Some(line) = self.log().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            if let Some(status) = ended {
                bail!(
                    "{} ended with {status} before it said {text:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            if Instant::now() > deadline {
                bail!("{} has not said {text:?} in {limit:?}:\n{}", self.name, self.tail());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives the readers the moment they need for what an ended process has left in its pipes. A bounded one: a child of
    /// its own may hold them open.
    fn read_to_the_end(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline && !self.readers.iter().all(|it| it.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The end of its log, for messages.
    pub fn tail(&self) -> String {
        let log = self.log();
        let first = log.len().saturating_sub(LAST_LINES);
        let cut = |line: &String| line.chars().take(LINE_LENGTH).collect::<String>();
        log.get(first..).unwrap_or_default().iter().map(cut).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only this very child can be hit: its id is not free for reuse before it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Test runners show this only for tests that fail.
        let tail = self.tail();
        if !tail.is_empty() {
            eprintln!("--- end of the log of {} ---\n{tail}\n---", self.name);
        }
    }
}

fn collect(
    from: impl Read + Send + 'static,
    into: &Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            into.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("sh", command).unwrap()
    }

    #[test]
    fn a_line_is_found_and_an_early_end_is_an_error_with_the_log() {
        let mut process = shell("echo one; echo two >&2; exit 3");
        assert_eq!(process.wait_for_line("two", Duration::from_secs(10)).unwrap(), "two");
        let error = process.wait_for_line("three", Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn it_reads_what_is_said_to_it() {
        let mut process = shell("read line; echo got $line");
        process.say("this").unwrap();
        process.wait_for_line("got this", Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn dropping_it_ends_the_process() {
        let process = shell("exec sleep 600");
        let id = process.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
