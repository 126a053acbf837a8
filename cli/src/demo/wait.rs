//! Waiting for something to come true.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::process::Ended;

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(25);

/// Looks until there is something, and returns it with how long it took.
///
/// # Errors
/// When it takes longer than `patience`, naming `what` and the last error in the way; at once if a process has ended,
/// because no waiting brings it back.
pub(crate) async fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    let mut in_the_way = None;
    loop {
        match tokio::time::timeout(patience, look()).await {
            Ok(Ok(Some(found))) => return Ok((found, start.elapsed())),
            Ok(Ok(None)) => {}
            Ok(Err(error)) if error.is::<Ended>() => return Err(error.context(what.to_owned())),
            Ok(Err(error)) => in_the_way = Some(error),
            Err(_) => {}
        }
        if start.elapsed() >= patience {
            match in_the_way {
                Some(error) => bail!("{what}: not within {patience:?}; in the way: {error:#}"),
                None => bail!("{what}: not within {patience:?}"),
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
