//! What is discovered beside clusters, endpoints, listeners, routes and secrets, and from whom. Each story is told to Envoy
//! and to us, by state of the world and by delta; the server shares no code with us.

use std::future::Future;

use anyhow::{Context, Result};
use outrigger_integration::peers::peers;
use outrigger_integration::proxy::Kind;

mod client_status;
mod extensions;
mod on_demand;
mod runtime;
mod servers;
mod typed_struct;

/// Declares a test for each client and variant of a story.
macro_rules! stories {
    ($($name:ident)*) => {$(
        mod $name {
            use outrigger_integration::ads::Variant;
            use outrigger_integration::proxy::Kind;

            #[tokio::test]
            async fn by_state_of_the_world() -> anyhow::Result<()> {
                let story = |kind| super::$name(kind, Variant::Sotw);
                crate::play(story(Kind::Outrigger), story(Kind::Envoy)).await
            }

            #[tokio::test]
            async fn by_delta() -> anyhow::Result<()> {
                let story = |kind| super::$name(kind, Variant::Delta);
                crate::play(story(Kind::Outrigger), story(Kind::Envoy)).await
            }
        }
    )*};
}
pub(crate) use stories;

/// Both, where they can be run: first Envoy, which checks the story.
async fn play(
    ours: impl Future<Output = Result<()>>,
    envoys: impl Future<Output = Result<()>>,
) -> Result<()> {
    if peers().is_none() || !Kind::Outrigger.is_runnable() {
        return Ok(());
    }
    envoys.await.context("Envoy")?;
    ours.await.context("Outrigger")
}
