//! `--watch`.

use std::io::IsTerminal;
use std::time::Duration;

use crate::exit::{Failure, Outcome};
use crate::output::print;

/// How often to ask.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints what `render` makes: once, or every second until interrupted. On a terminal each answer replaces the one
/// before; elsewhere only an answer that differs is printed. While watching, an error is an answer like any other: the
/// control plane may come back.
pub(super) async fn show(
    watch: bool,
    mut render: impl AsyncFnMut() -> Result<String, Failure>,
) -> Outcome {
    if !watch {
        return print(&render().await?);
    }
    let terminal = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let text = match render().await {
            Ok(text) => text,
            Err(failure @ Failure::Usage(_)) => return Err(failure),
            Err(failure) => format!("error: {}\n", failure.message()),
        };
        if terminal {
            // Home, then each line erased behind its text, then everything below: no flicker.
            let text = text.replace('\n', "\u{1b}[K\n");
            print(&format!("\u{1b}[H{text}\u{1b}[J"))?;
        } else if text != last {
            print(&text)?;
            last = text;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
