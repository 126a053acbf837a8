//! Discovery: streams to control planes, and what is made of their answers.
//!
//! Reading order:
//! - [`kind`]: the types of resources;
//! - [`subscription`]: one type on one stream: names, versions, nonces, ACK and NACK. A pure state machine;
//! - [`needs`]: what a cluster or listener refers to by name;
//! - [`warming`]: what is complete, and may take effect. A pure state machine;
//! - [`virtual_hosts`]: virtual hosts that come one by one; [`demands`]: requests that wait for what they need;
//! - [`publish`]: how it takes effect;
//! - [`streams`]: which streams there are;
//! - [`discovery`]: the driver that connects all of these;
//! - [`client`], [`throttle`] and [`channel`]: a stream, how fast requests go out on it, and the connection under it; [`file`](mod@file) and [`watch`]: a file instead;
//! - [`lifetimes`]: resources with a time to live;
//! - [`resources`]: what came, as it came; [`disk`]: what of it outlives the process; [`counting`]: statistics.

mod channel;
mod client;
mod counting;
mod demands;
mod discovery;
mod disk;
mod file;
mod kind;
mod lifetimes;
mod needs;
mod publish;
mod resources;
mod streams;
mod subscription;
mod throttle;
mod virtual_hosts;
mod warming;
mod watch;

#[cfg(test)]
mod testing;

pub(crate) use channel::{ConnectError, ControlPlane};
pub(crate) use client::{Backoff, Client, Event, StreamError, metadata};
pub(crate) use discovery::{Discovery, Phase};
pub(crate) use disk::Disk;
pub(crate) use file::FileSource;
pub(crate) use kind::Kind;
/// Who the sidecar is to a discovery server; to others a value to hand on.
pub(crate) use outrigger_proto::envoy::config::core::v3::Node;
pub(crate) use publish::{Changes, Publish, Refusal};
pub(crate) use resources::Resources;
pub(crate) use streams::{Opened, StreamId};
pub(crate) use watch::Watch;
