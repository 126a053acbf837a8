//! What will go wrong if nobody does anything: certificates that are about to end and are not renewed.

use super::Api;
use super::view::{AuthorityStatus, SidecarStatus, rfc3339};
use serde::Serialize;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A root is rotated by hand: time enough to do it.
const ROOT_NOTICE: Duration = Duration::from_secs(90 * DAY.as_secs());
/// The issuing certificate is renewed by itself at half of its year.
const ISSUING_NOTICE: Duration = Duration::from_secs(30 * DAY.as_secs());

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Alarm {
    /// What it is, as a word that stays the same.
    pub(super) code: &'static str,
    /// In words, with what to do.
    pub(super) detail: String,
}

impl Api {
    /// Every alarm there is.
    pub(super) fn alarms(&self) -> Vec<Alarm> {
        let life = self.store.current().mesh().leaf_ttl;
        of(&self.identities.authority(), &self.view.sidecars(), life, SystemTime::now())
    }
}

fn of(
    authority: &AuthorityStatus,
    sidecars: &[SidecarStatus],
    life: Duration,
    now: SystemTime,
) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut alarm = |code, detail| alarms.push(Alarm { code, detail });
    for root in authority.roots.iter().take(1).filter(|root| root.expires < now + ROOT_NOTICE) {
        let until = rfc3339(root.expires);
        alarm("root_expires", format!("the root ends {until}: outrigger ca rotate"));
    }
    if authority.issuing_expires < now + ISSUING_NOTICE {
        let until = rfc3339(authority.issuing_expires);
        alarm(
            "issuing_expires",
            format!(
                "the issuing certificate ends {until} and was not renewed: see the control plane's log"
            ),
        );
    }
    for sidecar in sidecars.iter().filter(|sidecar| sidecar.connected) {
        let Some(expires) = sidecar.certificate_expires else { continue };
        let (node, until) = (&sidecar.node, rfc3339(expires));
        if expires <= now {
            alarm(
                "certificate_expired",
                format!(
                    "the certificate of {node} ended {until}: its peers refuse it; see its log"
                ),
            );
        } else if expires < now + life / 4 {
            alarm(
                "certificate_expires",
                format!(
                    "the certificate of {node} ends {until} and was not renewed at half of its life: see its log"
                ),
            );
        }
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::super::view::{Client, RootStatus, TypeStatus};
    use super::*;

    #[test]
    fn what_is_about_to_end_is_named_in_time() {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let authority = |root, issuing| AuthorityStatus {
            roots: vec![RootStatus { pin: String::new(), expires: now + root }],
            issuing_expires: now + issuing,
            rotation: None,
        };
        let sidecar = |connected, expires| SidecarStatus {
            node: "web-1".to_owned(),
            service: "web".to_owned(),
            instance: "web-1".to_owned(),
            connected,
            client: Client::Outrigger,
            revision: 1,
            listeners: TypeStatus::Ok,
            routes: TypeStatus::Ok,
            clusters: TypeStatus::Ok,
            endpoints: TypeStatus::Ok,
            secrets: TypeStatus::Ok,
            certificate_expires: Some(expires),
            last_contact: now,
        };
        let codes = |authority: &AuthorityStatus, sidecars: &[SidecarStatus]| {
            of(authority, sidecars, DAY, now).iter().map(|it| it.code).collect::<Vec<_>>()
        };
        let fine = authority(400 * DAY, 200 * DAY);
        assert_eq!(codes(&fine, &[sidecar(true, now + DAY / 2)]), Vec::<&str>::new());
        let ending =
            [sidecar(true, now + DAY / 5), sidecar(true, now - DAY), sidecar(false, now - DAY)];
        assert_eq!(codes(&fine, &ending), ["certificate_expires", "certificate_expired"]);
        let old = authority(80 * DAY, 20 * DAY);
        assert_eq!(codes(&old, &[]), ["root_expires", "issuing_expires"]);
    }
}
