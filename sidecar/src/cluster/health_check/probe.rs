//! One endpoint as it is asked: what is kept between two checks of it.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use super::client::HttpClient;
use super::connect::Stream;
use super::judge::{Failure, Passed};
use super::{Plan, Target, grpc, http, tcp};
use crate::config::health_check::Check;

/// Something that is on its way.
pub(in crate::cluster) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asks an endpoint. Tests put their own in the place of the network.
pub(in crate::cluster) trait Probe: Send {
    /// One check. It is dropped when its time is over.
    fn check<'a>(
        &'a mut self,
        plan: &'a Plan,
        target: &'a Target,
    ) -> Pending<'a, Result<Passed, Failure>>;

    /// Ends when the endpoint breaks a connection off that it should keep between two checks.
    fn broken_off(&mut self) -> Pending<'_, ()>;

    /// The check that was under way took too long.
    fn timed_out(&mut self, plan: &Plan);

    /// Lets go of a connection.
    fn disconnect(&mut self);
}

/// Makes a [`Probe`] for each endpoint.
pub(in crate::cluster) type MakeProbe = Arc<dyn Fn() -> Box<dyn Probe> + Send + Sync>;

/// Over the network.
pub(in crate::cluster) fn over_network() -> MakeProbe {
    Arc::new(|| Box::new(Network::default()))
}

/// The connection that is kept, if there is one.
#[derive(Default)]
struct Network {
    http: Option<HttpClient>,
    tcp: Option<Stream>,
}

impl Probe for Network {
    fn check<'a>(
        &'a mut self,
        plan: &'a Plan,
        target: &'a Target,
    ) -> Pending<'a, Result<Passed, Failure>> {
        Box::pin(async move {
            let result = match &plan.config.check {
                Check::Http(check) => http::check(&mut self.http, plan, target, check).await,
                Check::Grpc(check) => grpc::check(&mut self.http, plan, target, check).await,
                Check::Tcp(check) => tcp::check(&mut self.tcp, plan, target, check).await,
            };
            if !plan.config.reuse_connection {
                self.disconnect();
            }
            result
        })
    }

    fn broken_off(&mut self) -> Pending<'_, ()> {
        match &mut self.tcp {
            Some(stream) => Box::pin(tcp::broken_off(stream)),
            // HTTP connections may end at any time between two requests.
            None => Box::pin(pending()),
        }
    }

    fn timed_out(&mut self, plan: &Plan) {
        // A stream of HTTP/2 is given up alone, as Envoy does it for gRPC; everything else ends with its connection.
        let keeps = matches!(plan.config.check, Check::Grpc(_)) && plan.config.reuse_connection;
        if !keeps {
            self.disconnect();
        }
    }

    fn disconnect(&mut self) {
        *self = Self::default();
    }
}
