//! What requests ask for while they wait: virtual hosts of route configurations, and clusters.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_proto::envoy::config::route::v3::VirtualHost as VirtualHostProto;
use outrigger_proto::google::protobuf::Any;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::update::{check_known, unpack};
use super::{Discovery, report};
use crate::config::bootstrap::Variant;
use crate::config::config_source::{ConfigSource, Origin};
use crate::config::{self, Rejected};
use crate::xds::demands::Asked;
use crate::xds::needs::{Need, Wait};
use crate::xds::subscription::{Incoming, Interest, Update};
use crate::xds::virtual_hosts::routes_of;
use crate::xds::{Kind, Publish, Refusal};

impl Discovery {
    /// A request waits for the virtual host of a route configuration that takes its `Host`. It waits no longer when
    /// `settled` is dropped, which may be at once: then there is none, and nobody who could be asked.
    pub(crate) fn demand_virtual_host(
        &mut self,
        routes: &str,
        host: &str,
        settled: oneshot::Sender<()>,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        let Some(source) = self.warming.virtual_hosts().source(routes) else { return };
        let name: Arc<str> = format!("{routes}/{host}").into();
        let need = Need::new(Kind::VirtualHost, &name, source);
        if self.warming.virtual_hosts().is_known(&name) {
            return;
        }
        if self.demands.wait(Kind::VirtualHost, &name, settled) == Asked::New {
            self.warming.need(&[(need, Wait::Not)]);
            self.settle(publish, now, &mut Vec::new());
        }
    }

    /// As [`Discovery::demand_virtual_host`], for a cluster.
    pub(crate) fn demand_cluster(
        &mut self,
        name: &str,
        source: &ConfigSource,
        settled: oneshot::Sender<()>,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        if self.warming.is_serving(name) {
            return;
        }
        if let Err(reason) = self.check_incremental(&source.origin) {
            tracing::warn!(cluster = name, reason, "a cluster cannot be asked for");
            return;
        }
        let name: Arc<str> = name.into();
        match self.demands.wait(Kind::Cluster, &name, settled) {
            Asked::TooMany => return,
            Asked::New | Asked::Before => {}
        }
        if self.demands.ask_for_cluster(&source.origin, &name) {
            self.want_clusters(&source.origin);
            self.settle(publish, now, &mut Vec::new());
        }
    }

    /// Requests that wait for clusters which are there now go on.
    pub(crate) fn settle_clusters(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.demands.settle_clusters(is_there);
    }

    /// Whether a source can be asked for one thing after the other.
    pub(super) fn check_incremental(&self, origin: &Origin) -> Result<(), &'static str> {
        match origin {
            Origin::Ads if self.ads == Some(Variant::Delta) => Ok(()),
            Origin::Ads => {
                Err("dynamic_resources.ads_config must be there, with api_type DELTA_GRPC")
            }
            Origin::Service(service) if service.variant != Variant::Delta => {
                Err("its api_type must be DELTA_GRPC")
            }
            Origin::Service(service)
                if service.channel.is_some() || self.servers.contains(&service.cluster) =>
            {
                Ok(())
            }
            Origin::Service(_) => {
                Err("the bootstrap has no such cluster of type STATIC or STRICT_DNS")
            }
            Origin::File(_) => Err("a file cannot be asked"),
        }
    }

    /// A server has no cluster of this name.
    pub(super) fn no_cluster(&mut self, origin: &Origin, name: &Arc<str>) {
        if self.demands.forget_cluster(origin, name) {
            self.want_clusters(origin);
        }
    }

    fn want_clusters(&mut self, origin: &Origin) {
        let names = self.demands.clusters(origin);
        let all = self.cds.as_ref().is_some_and(|cds| cds.origin == *origin);
        let interest = match (all, names.is_empty()) {
            (true, true) => Interest::Everything,
            (true, false) => Interest::EverythingAnd(names),
            (false, _) => Interest::Names(names),
        };
        if let Some(subscription) = self.streams.subscription(Kind::Cluster, origin) {
            subscription.want(interest);
        }
    }

    /// Applies an update of virtual hosts one by one. Returns everything that was refused.
    pub(super) fn on_virtual_hosts(
        &mut self,
        origin: &Origin,
        update: &mut Update,
        publish: &mut dyn Publish,
        now: Instant,
    ) -> Vec<Refusal> {
        let kind = Kind::VirtualHost;
        let mut refused = std::mem::take(&mut update.refused);
        for refusal in &refused {
            report("a resource cannot be read", refusal);
        }
        // Names that need not be waited for any longer, and names behind which there is nothing.
        let mut settled: Vec<Arc<str>> = Vec::new();
        let mut gone: BTreeSet<Arc<str>> = BTreeSet::new();
        for name in &update.removed {
            gone.extend(self.warming.remove_virtual_host(name));
        }
        for name in refused.iter().map(|it| &it.name).chain(&update.removed) {
            if self.demands.is_waiting(kind, name) {
                gone.insert(Arc::clone(name));
                settled.push(Arc::clone(name));
            }
        }
        for Incoming { name, aliases, body, .. } in &update.resources {
            let names = std::iter::once(name).chain(aliases);
            let asked_for: Vec<Arc<str>> =
                names.filter(|name| self.demands.is_waiting(kind, name)).map(Arc::clone).collect();
            settled.extend(asked_for.iter().map(Arc::clone));
            let Some(body) = body else {
                gone.extend(self.warming.remove_virtual_host(name));
                gone.extend(asked_for);
                continue;
            };
            let Some(limit) = self.warming.virtual_hosts().limit_of(name, origin) else { continue };
            let known = asked_for.clone();
            let set = self
                .virtual_host(body, limit)
                .and_then(|host| self.warming.set_virtual_host(name, host, asked_for));
            if let Err(rejected) = set {
                gone.extend(known);
                let refusal = Refusal { kind, name: Arc::clone(name), rejected };
                report("a resource is refused; its previous version stays", &refusal);
                refused.push(refusal);
            }
        }
        // What there is not is not asked for any longer: when it is needed again, it is asked for again.
        let needs: Vec<(Need, Wait)> = gone
            .into_iter()
            .map(|name| (Need { kind, name, origin: origin.clone() }, Wait::Not))
            .collect();
        self.warming.need_no_more(&needs);

        let named = update.removed.iter().chain(update.resources.iter().map(|it| &it.name));
        let mut about: BTreeSet<Arc<str>> =
            named.filter_map(|name| routes_of(name)).map(Arc::from).collect();
        if about.is_empty() && refused.is_empty() {
            // Nothing at all: that is the answer for everybody who asks there.
            about = self.warming.virtual_hosts().all_of(origin);
        }
        for routes in about {
            let accepted = refused.iter().all(|it| routes_of(&it.name) != Some(&*routes));
            self.count(kind, &routes, accepted.then_some(&*update.version));
            self.warming.answered(kind, origin, &routes, now);
        }
        self.publish(publish, kind, &mut refused);
        for name in settled {
            self.demands.settle(kind, &name);
        }
        refused
    }

    fn virtual_host(
        &self,
        body: &Any,
        max_direct_response: u32,
    ) -> Result<config::route::VirtualHost, Vec<Rejected>> {
        if let Some(schema) = &self.strict {
            check_known(schema, body)?;
        }
        let resolved = config::typed_struct::resolve(body, self.strict.is_some())?;
        let proto = unpack::<VirtualHostProto>(&resolved)?;
        config::route::virtual_host_from_proto(proto, max_direct_response)
    }
}
