//! Incremental: requests and responses say what changes.

use std::collections::HashSet;
use std::sync::Arc;

use outrigger_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};

use super::{Answer, Incoming, Subscription, Update};
use crate::xds::Refusal;

impl Subscription {
    pub(super) fn delta_request(&self, answer: Option<Answer>) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            type_url: self.kind.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        if let Some(answer) = answer {
            request.response_nonce = answer.nonce;
            request.error_detail = answer.error;
        }
        match &self.told {
            None => {
                request.resource_names_subscribe = self.wanted.names();
                request.initial_resource_versions = self
                    .accepted
                    .iter()
                    .filter(|(_, version)| !version.is_empty())
                    .map(|(name, version)| (name.to_string(), version.clone()))
                    .collect();
            }
            // A wildcard stays one for as long as the stream lives.
            Some(told) => {
                let none = Arc::default();
                let told = told.explicit().unwrap_or(&none);
                let wanted = self.wanted.explicit().unwrap_or(&none);
                if !Arc::ptr_eq(wanted, told) {
                    let strings = |name: &Arc<str>| name.to_string();
                    request.resource_names_subscribe =
                        wanted.difference(told).map(strings).collect();
                    request.resource_names_unsubscribe =
                        told.difference(wanted).map(strings).collect();
                }
            }
        }
        request
    }

    pub(super) fn receive_delta(&mut self, response: DeltaDiscoveryResponse) -> Update {
        let mut update = Update {
            version: response.system_version_info,
            nonce: response.nonce,
            ..Update::default()
        };
        let mut seen: HashSet<Arc<str>> = HashSet::new();
        for (index, resource) in response.resources.into_iter().enumerate() {
            let version = resource.version.clone();
            let outer: Arc<str> = resource.name.as_str().into();
            let aliases = resource.aliases.iter().map(|alias| alias.as_str().into()).collect();
            let (name, body, ttl) = match self.unwrap_resource(resource) {
                Ok(parts) => parts,
                Err((name, rejected)) => {
                    let name = name.unwrap_or_else(|| format!("resources[{index}]").into());
                    if !seen.insert(Arc::clone(&name)) {
                        return self.malformed(update, &name);
                    }
                    if outer.is_empty() || self.concerns_us(&name) {
                        let rejected = vec![rejected];
                        update.refused.push(Refusal { kind: self.kind, name, rejected });
                    }
                    continue;
                }
            };
            if !seen.insert(Arc::clone(&name)) {
                return self.malformed(update, &name);
            }
            if self.concerns_us(&name) {
                update.resources.push(Incoming { name, aliases, version, body, ttl });
            }
        }
        for name in response.removed_resources {
            let name: Arc<str> = name.into();
            if !seen.insert(Arc::clone(&name)) {
                return self.malformed(update, &name);
            }
            if self.concerns_us(&name) {
                update.removed.push(name);
            }
        }
        update
    }
}
