//! What a request may ask discovery for while it is held: see the HTTP filter `on_demand`.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::config::on_demand::OnDemandClusters;

/// Something that is waited for. Whoever waited goes away with its receiver, if it does not wait any longer.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) wanted: Wanted,
    /// Told when there is an answer and it is in effect, whatever it is.
    pub(crate) settled: oneshot::Sender<()>,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// The virtual host of a route configuration that takes this `Host`, in lower case.
    VirtualHost { routes: Arc<str>, host: Box<str> },
    /// A cluster.
    Cluster { name: Box<str>, from: Arc<OnDemandClusters> },
}

/// Where demands go. There are never more of them than requests that wait.
pub(crate) type Demands = mpsc::UnboundedSender<Demand>;

/// Asks, and waits for an answer. `false`: there is nobody who could answer any more.
pub(crate) async fn ask(demands: &Demands, wanted: Wanted) -> bool {
    let (settled, answer) = oneshot::channel();
    demands.send(Demand { wanted, settled }).is_ok() && answer.await.is_ok()
}
