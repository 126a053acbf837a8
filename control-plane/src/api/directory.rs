//! A watched directory as the source of the mesh: what its files say is the whole configuration.
//!
//! Files are looked at rather than subscribed to: that works on every file system, also for the symbolic links that
//! Kubernetes swaps under a mounted ConfigMap.

use super::Api;
use super::apply::replacing;
use crate::model::problem::{Code, Problem};
use crate::model::read::{self, Content, Document};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at. What is found twice in a row is complete.
const INTERVAL: Duration = Duration::from_millis(250);

/// The author of what comes from the directory.
const AUTHOR: &str = "config-dir";

/// What a file was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
}

/// The files of a directory that hold resources (`.yaml`, `.yml`, `.json`, not hidden), by name.
///
/// # Errors
/// If the directory cannot be read.
pub fn look(directory: &Path) -> io::Result<Vec<Seen>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        if hidden || !matches!(suffix, Some("yaml" | "yml" | "json")) {
            continue;
        }
        // Through links; a file that is gone by now is as if it had not been there.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() {
            files.push(Seen { path, modified: metadata.modified().ok(), length: metadata.len() });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Makes the configuration what the files of `directory` say, now and whenever they change, until `stop`. While they are
/// not valid, the last valid configuration stays in force, and every problem is logged.
pub async fn follow(api: Arc<Api>, directory: PathBuf, stop: CancellationToken) {
    let mut applied = None;
    let mut last = None;
    loop {
        match look(&directory) {
            Ok(files) => {
                if last.as_ref() == Some(&files) && applied.as_ref() != Some(&files) {
                    apply(&api, &files).await;
                    applied = Some(files.clone());
                }
                last = Some(files);
            }
            Err(error) => {
                if last.take().is_some() {
                    tracing::error!(directory = %directory.display(), %error, "cannot be read; the last configuration stays in force");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Makes the configuration what `files` say; every problem is logged with its place. Whether it was made so.
pub async fn apply(api: &Api, files: &[Seen]) -> bool {
    let (documents, origins, problems) = match read_all(files) {
        Ok(read) => read,
        Err((path, error)) => {
            tracing::error!(file = %path.display(), %error, "cannot be read; the last configuration stays in force");
            return false;
        }
    };
    if !problems.is_empty() {
        let count = problems.len();
        for (path, problem) in problems {
            tracing::error!("{}:{problem}", path.display());
        }
        tracing::error!(
            problems = count,
            "the directory is not valid; the last configuration stays in force"
        );
        return false;
    }
    match api.change(AUTHOR, |base| Ok(replacing(base, &documents))).await {
        Ok(_) => true,
        Err(failure) => {
            for problem in failure.problems() {
                let name = (problem.kind.clone(), problem.name.clone());
                let path = origins.get(&name).map(|path| path.display().to_string());
                tracing::error!("{}:{problem}", path.unwrap_or_default());
            }
            tracing::error!(
                detail = failure.detail(),
                "the directory is not valid; the last configuration stays in force"
            );
            false
        }
    }
}

type Name = (Option<String>, Option<String>);
type Read = (Vec<Document>, HashMap<Name, PathBuf>, Vec<(PathBuf, Problem)>);

/// The documents of all files, where each object comes from, and what is wrong.
fn read_all(files: &[Seen]) -> Result<Read, (PathBuf, io::Error)> {
    let mut all = Vec::new();
    let mut origins = HashMap::new();
    let mut wrong = Vec::new();
    for Seen { path, .. } in files {
        let text = std::fs::read_to_string(path).map_err(|error| (path.clone(), error))?;
        let (documents, problems) = read::documents(&text);
        wrong.extend(problems.into_iter().map(|problem| (path.clone(), problem)));
        for document in documents {
            let (kind, name) = (document.kind(), document.name());
            if matches!(document.content, Content::Delete(..)) {
                let reason = "in a directory, what is not there is deleted: leave the document out";
                let problem = Problem::new(Code::InvalidValue, reason).of(kind, name);
                let problem = problem.field("delete").at(document.position_of("delete"));
                wrong.push((path.clone(), problem));
            }
            let name = (Some(kind.as_str().to_owned()), Some(name.to_owned()));
            origins.insert(name, path.clone());
            all.push(document);
        }
    }
    Ok((all, origins, wrong))
}
