//! Join tokens in files, for sidecars that start together with their control plane and have nobody who brings them one.

use crate::api::view::TokenIssuer;
use crate::cli::TokenFile;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A token is good for so long. It is replaced at half of that.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// So many sidecars may join with one: more than any service has instances.
const USES: u32 = 10_000;
/// When a file could not be written, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// The files, and who makes the tokens in them.
pub(crate) struct TokenFiles {
    files: Vec<TokenFile>,
    tokens: Arc<dyn TokenIssuer>,
}

impl TokenFiles {
    pub(crate) fn new(files: Vec<TokenFile>, tokens: Arc<dyn TokenIssuer>) -> Self {
        Self { files, tokens }
    }

    /// Writes every file; the pause after which [`Self::keep`] does it again.
    pub(crate) async fn issue(self: &Arc<Self>) -> Duration {
        let this = Arc::clone(self);
        let wrote = tokio::task::spawn_blocking(move || this.write_all()).await;
        if wrote.unwrap_or(false) { TTL / 2 } else { AGAIN }
    }

    /// Writes every file again in time, first after `pause`, until `stop`.
    pub(crate) async fn keep(self: Arc<Self>, mut pause: Duration, stop: CancellationToken) {
        if self.files.is_empty() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = self.issue().await;
        }
    }

    /// Whether all could be written. Blocks.
    fn write_all(&self) -> bool {
        let mut all = true;
        for TokenFile { service, file } in &self.files {
            let token = self.tokens.issue(service, TTL, USES);
            let written =
                token.and_then(|issued| write(file, &issued.token).map_err(|e| e.to_string()));
            match written {
                Ok(()) => tracing::info!(%service, file = %file.display(), "join token written"),
                Err(error) => {
                    all = false;
                    tracing::error!(%service, file = %file.display(), %error, "no join token");
                }
            }
        }
        all
    }
}

/// Whole or not at all: whoever waits for the file may read it as soon as it is there.
fn write(path: &Path, token: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let new = path.with_extension("new");
    let mut options = std::fs::File::options();
    options.create(true).write(true).truncate(true);
    // Who may see it is decided by the folder: the sidecar may be another user.
    let mut file = options.mode(0o644).open(&new)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::IssuedToken;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::SystemTime;

    #[derive(Default)]
    struct Counting(AtomicU32);

    impl TokenIssuer for Counting {
        fn issue(&self, service: &str, ttl: Duration, _: u32) -> Result<IssuedToken, String> {
            let number = self.0.fetch_add(1, Ordering::SeqCst);
            Ok(IssuedToken {
                token: format!("{service}-{number}"),
                expires: SystemTime::now() + ttl,
            })
        }
    }

    #[test]
    fn a_token_is_written_whole_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let files = vec![TokenFile { service: "api".to_owned(), file: file.clone() }];
        let files = TokenFiles::new(files, Arc::new(Counting::default()));
        assert!(files.write_all());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "api-0\n");
        assert!(files.write_all());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "api-1\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_success() {
        let file = "/no/such/folder/token".into();
        let files = vec![TokenFile { service: "api".to_owned(), file }];
        assert!(!TokenFiles::new(files, Arc::new(Counting::default())).write_all());
    }
}
