//! What the API asks of identities: who has one, revoke one, rotate the root.

use crate::api::view::{
    AuthorityStatus, Identities, IdentityStatus, RevokeError, Revoked, RevokedIdentity, RootStatus,
    RotationStatus, Waiting,
};
use crate::identity::issued::Issued;
use crate::identity::rotation::Progress;
use crate::identity::tokens::Tokens;
use crate::registry::InstanceName;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

/// Identities, for the API.
pub(crate) struct Administration {
    pub(crate) progress: Arc<Progress>,
    pub(crate) tokens: Arc<Tokens>,
}

impl Identities for Administration {
    fn identities(&self) -> Vec<IdentityStatus> {
        let live = self.progress.registry.live();
        let all = self.progress.ledger.newest(SystemTime::now());
        let status = |(name, newest): (InstanceName, Issued)| IdentityStatus {
            connected: live.find(&name).is_some(),
            service: name.service.to_string(),
            instance: name.instance.to_string(),
            expires: newest.expires(),
            serial: newest.serial,
            revoked: newest.revoked,
        };
        all.into_iter().map(status).collect()
    }

    fn revoke(&self, name: &str) -> Result<Revoked, RevokeError> {
        let all: Vec<InstanceName> =
            self.progress.ledger.newest(SystemTime::now()).into_iter().map(|(it, _)| it).collect();
        let of_service: Vec<_> = all.iter().filter(|it| *it.service == *name).cloned().collect();
        let tokens = match of_service.is_empty() {
            true => 0,
            false => self.tokens.revoke(name).map_err(|it| RevokeError::Failed(it.to_string()))?,
        };
        let names = if of_service.is_empty() { instances(&all, name)? } else { of_service };
        let revoked = self.progress.revoke(&names).map_err(RevokeError::Failed)?;
        for (name, certificates) in &revoked {
            tracing::warn!(service = %name.service, instance = %name.instance, certificates, "identity revoked");
        }
        let identities = revoked.into_iter().map(|(name, certificates)| RevokedIdentity {
            service: name.service.to_string(),
            instance: name.instance.to_string(),
            certificates,
        });
        Ok(Revoked { identities: identities.collect(), tokens })
    }

    fn authority(&self) -> AuthorityStatus {
        let authority = &self.progress.authority;
        let roots = authority.root_ends().into_iter();
        let rotation = authority.rotation().map(|rotation| RotationStatus {
            step: rotation.step,
            since: Progress::since(rotation),
            waiting_for: self
                .progress
                .waits_for(rotation)
                .into_iter()
                .map(|(name, reason)| Waiting { node: name.instance.to_string(), reason })
                .collect(),
        });
        AuthorityStatus {
            roots: roots.map(|(pin, expires)| RootStatus { pin, expires }).collect(),
            issuing_expires: authority.issuing_ends(),
            rotation,
        }
    }

    fn rotate(&self) -> Result<(), String> {
        self.progress.begin()
    }
}

/// The one instance with this name: alone, or with its service behind a dot.
fn instances(all: &[InstanceName], name: &str) -> Result<Vec<InstanceName>, RevokeError> {
    let full = |it: &&InstanceName| format!("{}.{}", it.instance, it.service) == name;
    let found: Vec<_> = match all.iter().find(full) {
        Some(one) => vec![one.clone()],
        None => all.iter().filter(|it| *it.instance == *name).cloned().collect(),
    };
    match found.len() {
        0 => Err(RevokeError::Unknown),
        1 => Ok(found),
        _ => {
            let services: BTreeSet<_> =
                found.iter().map(|it| format!("{}.{}", it.instance, it.service)).collect();
            Err(RevokeError::Ambiguous(services.into_iter().collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_alone_or_with_its_service() {
        let name = |service: &str, instance: &str| InstanceName {
            service: service.into(),
            instance: instance.into(),
        };
        let all = [name("api", "one"), name("web", "one"), name("web", "two")];
        assert_eq!(instances(&all, "two").unwrap(), [name("web", "two")]);
        assert_eq!(instances(&all, "one.web").unwrap(), [name("web", "one")]);
        let both = ["one.api".to_owned(), "one.web".to_owned()];
        assert_eq!(instances(&all, "one").unwrap_err(), RevokeError::Ambiguous(both.to_vec()));
        assert_eq!(instances(&all, "three").unwrap_err(), RevokeError::Unknown);
    }
}
