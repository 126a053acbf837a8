//! One resource of a response: its name, found even where the rest cannot be read.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::any;
use outrigger_proto::envoy::service::discovery::v3::Resource;
use outrigger_proto::google::protobuf::Any;
use prost::Message;

use super::Subscription;
use crate::config::Rejected;
use crate::xds::Kind;

/// A resource that cannot be read, with its name if that could be.
pub(super) type Unreadable = (Option<Arc<str>>, Rejected);

/// Name, body and time to live of a resource.
pub(super) type Parts = (Arc<str>, Option<Any>, Option<Duration>);

/// The name is field 1 of all our types: enough to name a resource whose rest does not decode.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Subscription {
    pub(super) fn unwrap_resource(&self, resource: Resource) -> Result<Parts, Unreadable> {
        let ttl = resource.ttl.map(|ttl| {
            // A negative one is over at once.
            let (seconds, nanos) = (ttl.seconds.try_into(), ttl.nanos.try_into());
            Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0).min(999_999_999))
        });
        let outer: Option<Arc<str>> =
            (!resource.name.is_empty()).then(|| resource.name.as_str().into());
        let Some(body) = resource.resource else {
            return match outer {
                Some(name) => Ok((name, None, ttl)),
                None => Err((None, rejected("has neither a name nor a resource".to_owned()))),
            };
        };
        let inner = match self.name_of(&body) {
            Ok(name) => name,
            Err((inner, rejected)) => return Err((outer.or(inner), rejected)),
        };
        match outer {
            // A virtual host has a name of its own, and one as a resource.
            Some(outer) if self.kind == Kind::VirtualHost => Ok((outer, Some(body), ttl)),
            Some(outer) if outer != inner => {
                let reason = format!("the resource calls itself {inner:?}");
                Err((Some(outer), Rejected { path: "name".to_owned(), reason }))
            }
            _ => Ok((inner, Some(body), ttl)),
        }
    }

    pub(super) fn name_of(&self, body: &Any) -> Result<Arc<str>, Unreadable> {
        let named = Named::decode(body.value.as_slice());
        if any::message_name(&body.type_url) != any::message_name(self.kind.type_url()) {
            let reason = format!("is a {}", any::message_name(&body.type_url));
            let name = named.ok().filter(|named| !named.name.is_empty());
            return Err((
                name.map(|named| named.name.into()),
                Rejected { path: "type_url".to_owned(), reason },
            ));
        }
        match named {
            Ok(named) if named.name.is_empty() => {
                let path = if self.kind == Kind::Endpoint { "cluster_name" } else { "name" };
                Err((None, Rejected { path: path.to_owned(), reason: "is empty".to_owned() }))
            }
            Ok(named) => Ok(named.name.into()),
            Err(error) => Err((None, rejected(error.to_string()))),
        }
    }
}

pub(super) fn rejected(reason: String) -> Rejected {
    Rejected { path: String::new(), reason }
}
