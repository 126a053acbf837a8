//! State of the world: a request names everything, a response of listeners or clusters is everything.

use std::collections::HashSet;
use std::sync::Arc;

use outrigger_proto::any;
use outrigger_proto::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, Resource,
};
use outrigger_proto::google::protobuf::Any;

use super::resource::{Parts, Unreadable, rejected};
use super::{Answer, Incoming, Interest, Subscription, Update};
use crate::xds::Refusal;

impl Subscription {
    pub(super) fn sotw_request(
        &self,
        wanted: &Interest,
        answer: Option<Answer>,
    ) -> DiscoveryRequest {
        let (version_info, response_nonce, error_detail) = match answer {
            Some(answer) => (answer.version, answer.nonce, answer.error),
            None => (self.version.clone(), self.nonce.clone(), None),
        };
        DiscoveryRequest {
            version_info,
            resource_names: wanted.names(),
            type_url: self.kind.type_url().to_owned(),
            response_nonce,
            error_detail,
            ..DiscoveryRequest::default()
        }
    }

    pub(super) fn receive_sotw(&mut self, response: DiscoveryResponse) -> Update {
        self.nonce.clone_from(&response.nonce);
        let mut update = Update {
            version: response.version_info.clone(),
            nonce: response.nonce,
            ..Update::default()
        };
        let mut seen = HashSet::new();
        let mut unnamed = false;
        let mut heartbeats = 0;
        let count = response.resources.len();
        for (index, wrapped) in response.resources.into_iter().enumerate() {
            let (version, name, body, ttl) = match self.unwrap_sotw(wrapped, &response.version_info)
            {
                Ok((version, (name, body, ttl))) => (version, name, body, ttl),
                Err((name, rejected)) => {
                    unnamed |= name.is_none();
                    if let Some(name) = &name {
                        seen.insert(Arc::clone(name));
                    }
                    let name = name.unwrap_or_else(|| format!("resources[{index}]").into());
                    update.refused.push(Refusal {
                        kind: self.kind,
                        name,
                        rejected: vec![rejected],
                    });
                    continue;
                }
            };
            if !seen.insert(Arc::clone(&name)) {
                if self.kind.is_wildcard() {
                    return self.malformed(update, &name);
                }
                // As Envoy: the first one counts.
                tracing::warn!(kind = %self.kind, %name, "twice in one response: the first one counts");
                continue;
            }
            heartbeats += usize::from(body.is_none());
            if self.concerns_us(&name) {
                update.resources.push(Incoming { name, aliases: Vec::new(), version, body, ttl });
            }
        }
        // Heartbeats alone are not all there is: servers send them for those resources only that have a time to live.
        let is_whole = count == 0 || heartbeats < count;
        // A resource that cannot be named could be any of those that seem to be missing.
        if self.kind.is_wildcard() && is_whole && !unnamed {
            let gone = self.accepted.keys().filter(|name| !seen.contains(*name));
            update.removed = gone.map(Arc::clone).collect();
            update.removed.sort_unstable();
        }
        update
    }

    /// An entry of `DiscoveryResponse.resources`, with its version.
    fn unwrap_sotw(
        &self,
        wrapped: Any,
        response_version: &str,
    ) -> Result<(String, Parts), Unreadable> {
        if !any::holds::<Resource>(&wrapped) {
            let name = self.name_of(&wrapped)?;
            return Ok((response_version.to_owned(), (name, Some(wrapped), None)));
        }
        let resource: Resource =
            any::unpack(&wrapped).map_err(|e| (None, rejected(e.to_string())))?;
        let version = if resource.version.is_empty() {
            response_version.to_owned()
        } else {
            resource.version.clone()
        };
        Ok((version, self.unwrap_resource(resource)?))
    }
}
