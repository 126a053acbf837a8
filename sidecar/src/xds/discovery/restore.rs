//! Resources of an earlier life, until the server speaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_proto::google::protobuf::Any;
use tokio::time::Instant;

use super::{Discovery, report};
use crate::config::config_source::Origin;
use crate::xds::warming::Feed;
use crate::xds::{Kind, Publish, Refusal};

impl Discovery {
    /// Takes over resources of an earlier life, as they were kept: the server then only has to send what changed since.
    /// What can no longer be used is left out. Comes before the first stream.
    pub(crate) fn restore(
        &mut self,
        kept: Vec<(Kind, Arc<str>, String, Any)>,
        publish: &mut dyn Publish,
        now: Instant,
    ) {
        let mut by_source: BTreeMap<Feed, Vec<(Arc<str>, String)>> = BTreeMap::new();
        // Clusters first: listeners with routes of their own are checked against them. What is named comes after those
        // that say where it comes from.
        let order = [
            Kind::Runtime,
            Kind::Cluster,
            Kind::Listener,
            Kind::Secret,
            Kind::Endpoint,
            Kind::Route,
            Kind::Extension,
        ];
        for kind in order {
            for (_, name, version, body) in kept.iter().filter(|(other, ..)| *other == kind) {
                if self.is_static(kind, name) {
                    continue;
                }
                let Some(origin) = self.origin_of(kind, name) else { continue };
                match self.apply((kind, &origin), name, version, body.clone(), publish, now) {
                    Ok(()) => by_source
                        .entry((kind, origin))
                        .or_default()
                        .push((Arc::clone(name), version.clone())),
                    Err(rejected) => report(
                        "a kept resource cannot be used any more",
                        &Refusal { kind, name: Arc::clone(name), rejected },
                    ),
                }
            }
        }
        for ((kind, origin), resources) in by_source {
            if let Some(subscription) = self.streams.subscription(kind, &origin) {
                subscription.restore(String::new(), resources);
            }
            self.first_is_over(kind, &origin);
        }
        self.settle(publish, now, &mut Vec::new());
    }

    /// Where a resource comes from, as far as what refers to it says.
    fn origin_of(&self, kind: Kind, name: &Arc<str>) -> Option<Origin> {
        match kind {
            Kind::Cluster => self.cds.as_ref().map(|source| source.origin.clone()),
            Kind::Listener => self.lds.as_ref().map(|source| source.origin.clone()),
            // A listener of the bootstrap that needs it may not have had its turn yet.
            Kind::Endpoint
            | Kind::Route
            | Kind::VirtualHost
            | Kind::Secret
            | Kind::Extension
            | Kind::Runtime => {
                self.warming.origin_of(kind, name).or_else(|| self.ads.map(|_| Origin::Ads))
            }
        }
    }
}
