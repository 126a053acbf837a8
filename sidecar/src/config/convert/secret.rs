//! Secrets.

use std::sync::Arc;

use outrigger_proto::envoy::extensions::transport_sockets::tls::v3 as proto;
use outrigger_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;

use crate::config::Problems;
use crate::config::secret::{Secret, SecretValue};

use super::certificate;
use super::common::text;

/// A secret.
pub(super) fn convert(problems: &mut Problems, proto: proto::Secret) -> Option<Secret> {
    let proto::Secret { name, r#type } = proto;
    let name = text(problems, "name", name);
    let value = match r#type {
        Some(Type::TlsCertificate(proto)) => problems
            .field("tls_certificate", |problems| certificate::tls_certificate(problems, proto))
            .map(SecretValue::Certificate),
        // Whether it has roots is judged where it is used: they may stand beside it.
        Some(Type::ValidationContext(proto)) => Some(SecretValue::Validation(Arc::new(
            problems
                .field("validation_context", |problems| certificate::validation(problems, proto)),
        ))),
        Some(Type::SessionTicketKeys(_)) => {
            problems.unsupported("session_ticket_keys", true);
            None
        }
        Some(Type::GenericSecret(_)) => {
            problems.unsupported("generic_secret", true);
            None
        }
        None => {
            problems.reject("one of tls_certificate, validation_context is required");
            None
        }
    };
    Some(Secret { name: name.into(), value: value? })
}
