//! A response: taken apart, applied resource by resource, and answered.

use std::sync::Arc;

use outrigger_proto::any::{self, UnpackError};
use outrigger_proto::envoy::config::cluster::v3::Cluster as ClusterProto;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_proto::envoy::config::listener::v3::Listener as ListenerProto;
use outrigger_proto::envoy::config::route::v3::RouteConfiguration as RoutesProto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use outrigger_proto::envoy::service::runtime::v3::Runtime;
use outrigger_proto::google::protobuf::Any;
use outrigger_proto::json::{Problem, Schema};
use prost::Name;
use tokio::time::Instant;

use super::{Discovery, report, whole};
use crate::config::config_source::Origin;
use crate::config::runtime::Values;
use crate::config::{self, Rejected};
use crate::xds::subscription::{Incoming, Response, Update};
use crate::xds::{Kind, Publish, Refusal, StreamId};

impl Discovery {
    pub(super) fn on_response(
        &mut self,
        id: StreamId,
        response: Response,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        let Some(stream) = self.streams.get(id) else { return };
        let origin = stream.origin.clone();
        let type_url = response.type_url();
        // A stream of one type need not say which.
        let kind = match Kind::from_type_url(type_url) {
            None if type_url.is_empty() => stream.kind(),
            kind => kind,
        };
        let Some((kind, subscription)) =
            kind.and_then(|kind| Some((kind, stream.subscription(kind)?)))
        else {
            tracing::warn!(type_url, "a response of a type nobody asked for");
            return;
        };
        if let Some(identifier) = response.control_plane() {
            self.counting.identifier(identifier);
        }
        let mut update = subscription.receive(response);
        let refused = match &update.malformed {
            Some(reason) => {
                tracing::warn!(%kind, reason, "a response is refused as a whole");
                Vec::new()
            }
            None if kind == Kind::VirtualHost => {
                self.on_virtual_hosts(&origin, &mut update, publish, now)
            }
            None => self.on_update((kind, &origin), &mut update, publish, now),
        };
        let accepted = update.malformed.is_none() && refused.is_empty();
        self.counting.response(kind, accepted, &update.version);
        self.first_is_over(kind, &origin);
        if let Some(subscription) = self.streams.subscription(kind, &origin) {
            subscription.finish(update, &refused);
        }
        self.settle(publish, now, &mut Vec::new());
    }

    /// Applies an update resource by resource. Returns everything that was refused.
    fn on_update(
        &mut self,
        (kind, origin): (Kind, &Origin),
        update: &mut Update,
        publish: &mut dyn Publish,
        now: Instant,
    ) -> Vec<Refusal> {
        let mut refused = std::mem::take(&mut update.refused);
        for refusal in &refused {
            report("a resource cannot be read", refusal);
            self.resources.refuse(refusal, &update.version, None);
            self.count(kind, &refusal.name, None);
        }
        update.removed.retain(|name| !self.is_static(kind, name));
        update.resources.retain(|resource| !self.is_static(kind, &resource.name));
        // What goes takes effect together with what comes: addresses may go from one to the other.
        for name in &update.removed {
            self.remove(kind, origin, name, now);
        }
        for Incoming { name, version, body, ttl, .. } in &update.resources {
            if body.is_some() || self.resources.is_accepted(kind, name) {
                let end = ttl.map(|ttl| now + ttl);
                self.lifetimes.set((kind, Arc::clone(name), origin.clone()), end);
            }
            // Without a body it is a heartbeat: what there is stays.
            let Some(body) = body else { continue };
            if self.resources.is_current(kind, name, body) {
                self.resources.confirm(kind, name, version);
                self.count(kind, name, Some(version));
                continue;
            }
            let applied = self.apply((kind, origin), name, version, body.clone(), publish, now);
            self.count(kind, name, applied.is_ok().then_some(version));
            if let Err(rejected) = applied {
                let refusal = Refusal { kind, name: Arc::clone(name), rejected };
                report("a resource is refused; its previous version stays", &refusal);
                self.resources.refuse(&refusal, version, Some(body.clone()));
                refused.push(refusal);
                if !kind.is_wildcard() {
                    self.warming.answered(kind, origin, name, now);
                }
            }
        }
        self.publish(publish, kind, &mut refused);
        refused
    }

    /// Whether the bootstrap has taken a name: what a server says of it is ignored, and accepted, as in Envoy. Servers
    /// send everyone all clusters, their own among them, by which they are reached.
    pub(super) fn is_static(&mut self, kind: Kind, name: &Arc<str>) -> bool {
        let Some(is_reported) = self.static_names.get_mut(&(kind, Arc::clone(name))) else {
            return false;
        };
        if !std::mem::replace(is_reported, true) {
            tracing::info!(%kind, %name, "discovered too, but the one of the bootstrap stays");
        }
        true
    }

    /// Converts a resource and hands it to warming.
    pub(super) fn apply(
        &mut self,
        (kind, origin): (Kind, &Origin),
        name: &Arc<str>,
        version: &str,
        body: Any,
        publish: &mut dyn Publish,
        now: Instant,
    ) -> Result<(), Vec<Rejected>> {
        if let Some(schema) = &self.strict {
            check_known(schema, &body)?;
        }
        let resolved = config::typed_struct::resolve(&body, self.strict.is_some())?;
        match kind {
            Kind::Cluster => {
                let cluster = config::cluster::from_proto(unpack::<ClusterProto>(&resolved)?)?;
                self.check_sources((kind, name), &cluster)?;
                self.note_eds(&cluster);
                self.warming.set_cluster(Arc::new(cluster), now);
            }
            Kind::Endpoint => {
                let assignment =
                    config::endpoint::from_proto(unpack::<ClusterLoadAssignment>(&resolved)?)?;
                self.warming.set_endpoints(origin, Arc::new(assignment), now);
            }
            Kind::Listener => {
                let listener = config::listener::from_proto(unpack::<ListenerProto>(&resolved)?)?;
                self.check_sources((kind, name), &listener)?;
                self.check_clusters(&listener)?;
                self.check_on_demand(&listener)?;
                publish.reserve(&listener).map_err(|rejected| vec![rejected])?;
                self.warming.set_listener(Arc::new(listener), now);
            }
            Kind::Route => {
                let routes = config::route::from_proto(unpack::<RoutesProto>(&resolved)?)?;
                let mut rejected = Vec::new();
                self.check_routes(&routes, "", &mut rejected);
                if !rejected.is_empty() {
                    return Err(rejected);
                }
                self.check_virtual_hosts(&routes)?;
                self.warming.set_routes(origin, &Arc::new(routes), now)?;
            }
            Kind::Extension => {
                let proto = unpack::<TypedExtensionConfig>(&resolved)?;
                let extension = config::extension::from_proto(proto)?;
                self.check_extension(&extension)?;
                self.warming.set_extension(origin, extension, now);
            }
            Kind::Runtime => {
                let values = config::runtime::from_proto(unpack::<Runtime>(&resolved)?)?;
                self.warming.set_runtime(origin, name, values, now);
            }
            // They have a way of their own: they are no use without their route configuration.
            Kind::VirtualHost => return Err(whole("a virtual host cannot be kept".to_owned())),
            Kind::Secret => {
                let secret = config::secret::from_proto(unpack::<SecretProto>(&resolved)?)?;
                self.warming.set_secret(origin, secret, now);
            }
        }
        drop(resolved);
        self.resources.accept(kind, name, version, body);
        Ok(())
    }

    pub(super) fn remove(&mut self, kind: Kind, origin: &Origin, name: &Arc<str>, now: Instant) {
        self.lifetimes.set((kind, Arc::clone(name), origin.clone()), None);
        match kind {
            Kind::Cluster => {
                self.warming.remove_cluster(name);
                self.forget_eds(name);
                self.no_cluster(origin, name);
                self.resources.remove(kind, name);
            }
            Kind::Listener => {
                self.warming.remove_listener(name);
                self.resources.remove(kind, name);
            }
            Kind::Endpoint => self.warming.answered(kind, origin, name, now),
            // Whatever uses it keeps it, as in Envoy; it goes when nothing does.
            Kind::Route | Kind::VirtualHost | Kind::Secret => {}
            Kind::Extension => {
                self.warming.lose_extension(origin, name, now);
                self.resources.remove(kind, name);
            }
            // As in Envoy, a layer that is gone is an empty one.
            Kind::Runtime => {
                self.warming.set_runtime(origin, name, Values::new(), now);
                self.resources.remove(kind, name);
            }
        }
    }
}

pub(super) fn check_known(schema: &Schema, body: &Any) -> Result<(), Vec<Rejected>> {
    let unknown = schema
        .unknown_fields(any::message_name(&body.type_url), &body.value)
        .map_err(|error| whole(error.to_string()))?;
    if unknown.is_empty() {
        return Ok(());
    }
    let rejected = |problem: Problem| Rejected { path: problem.path, reason: problem.reason };
    Err(unknown.into_iter().map(rejected).collect())
}

pub(super) fn unpack<M: Name + Default>(body: &Any) -> Result<M, Vec<Rejected>> {
    any::unpack(body).map_err(|error: UnpackError| whole(error.to_string()))
}
