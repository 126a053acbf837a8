//! Copies of requests for other clusters (`request_mirror_policies`). Nobody waits for them, and whatever becomes of them
//! changes nothing for the request that they are copies of.
//!
//! A copy goes out once all of its request is here. Until then its body is kept, up to the limit that a body has that is
//! kept for another attempt; of a longer one there is no copy. How many copies there are at a time, and how many wait, the
//! circuit breakers of their cluster decide.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Version};

use super::body::{ClientBody, RequestBody, Whole};
use super::call;
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::filters::header_mutation;
use super::headers::host_of;
use super::limits::Limits;
use super::route_table::MirrorTo;
use crate::cluster::ClusterId;
use crate::config::mirror::{Mirror, MirrorCluster};
use crate::local::{ClusterRef, Local, View};

/// What copies are made by.
pub(crate) struct Mirroring<'r> {
    pub(crate) connection: &'r Rc<Connection>,
    pub(crate) view: &'r View,
    pub(crate) mirrors: &'r [MirrorTo],
    /// The cluster of the request itself, which counts the copies that there are not.
    pub(crate) cluster: &'r ClusterRef,
    pub(crate) limits: &'r Limits,
    pub(crate) https: bool,
    /// A copy says which attempt it is.
    pub(crate) counts_attempts: bool,
    /// Most bytes of a body.
    pub(crate) most: u64,
}

/// Copies of one request that wait for its body.
pub(crate) struct Copies {
    copies: Vec<Copy>,
    cluster: ClusterRef,
    data: Vec<Bytes>,
    bytes: u64,
    most: u64,
}

/// A copy without its body.
struct Copy {
    local: Rc<Local>,
    cluster: ClusterRef,
    request: Request<()>,
    version: Version,
    https: bool,
    limit: Option<Duration>,
}

/// Makes the copies of a request, as its route has changed it, and sends them as soon as its body is here.
pub(crate) fn begin(
    mirroring: &Mirroring<'_>,
    exchange: &Exchange,
    request: &Parts,
    body: &ClientBody,
) {
    if request.method == Method::CONNECT {
        return;
    }
    let copies: Vec<Copy> = mirroring
        .mirrors
        .iter()
        .filter(|to| {
            to.config.share.as_ref().is_none_or(|share| super::filters::happens(share.current()))
        })
        .filter_map(|to| Copy::of(mirroring, to, exchange, request))
        .collect();
    if copies.is_empty() {
        return;
    }
    match (&exchange.progress, body) {
        (None, _) | (Some(_), ClientBody::Empty) => {
            copies.into_iter().for_each(|copy| copy.send(RequestBody::Empty));
        }
        (Some(_), ClientBody::Whole(whole)) => {
            copies.into_iter().for_each(|copy| copy.send(RequestBody::Whole(whole.clone())));
        }
        (Some(progress), ClientBody::Incoming(_)) => {
            progress.copy_to(Box::new(Copies::new(copies, mirroring)));
        }
        (Some(progress), ClientBody::Kept(kept)) => match kept.whole() {
            Some(whole) => {
                copies.into_iter().for_each(|copy| copy.send(RequestBody::Whole(whole.clone())));
            }
            None => {
                // What a filter has read of it already does not come by again.
                let mut waiting = Copies::new(copies, mirroring);
                if kept.pieces().iter().all(|piece| waiting.keep(piece)) {
                    progress.copy_to(Box::new(waiting));
                }
            }
        },
    }
}

impl Copies {
    fn new(copies: Vec<Copy>, mirroring: &Mirroring<'_>) -> Self {
        let cluster = mirroring.cluster.clone();
        Self { copies, cluster, data: Vec::new(), bytes: 0, most: mirroring.most }
    }

    /// Keeps a piece of the body. `false`: it is too long, and there will be no copies.
    pub(crate) fn keep(&mut self, data: &Bytes) -> bool {
        self.bytes += data.len() as u64;
        if self.bytes > self.most {
            self.cluster.stats.local().retry_or_shadow_abandoned.inc();
            return false;
        }
        self.data.push(data.clone());
        true
    }

    /// The whole of the request is here.
    pub(crate) fn send(self, trailers: Option<&HeaderMap>) {
        let data = match &*self.data {
            [] => Bytes::new(),
            [only] => only.clone(),
            pieces => {
                let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
                pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
                whole.freeze()
            }
        };
        for copy in self.copies {
            let announced = copy.request.headers().contains_key(header::CONTENT_LENGTH);
            let whole = Whole { data: data.clone(), trailers: trailers.cloned(), announced };
            copy.send(RequestBody::Whole(Box::new(whole)));
        }
    }
}

impl Copy {
    fn of(
        mirroring: &Mirroring<'_>,
        to: &MirrorTo,
        exchange: &Exchange,
        original: &Parts,
    ) -> Option<Self> {
        let connection = mirroring.connection;
        let local = &connection.local;
        let id = cluster_of(to, local, mirroring.view, &original.headers)?;
        let cluster = ClusterRef::new(mirroring.view, id)?;
        let mut request = Request::new(());
        *request.method_mut() = original.method.clone();
        *request.uri_mut() = original.uri.clone();
        let headers = request.headers_mut();
        *headers = original.headers.clone();
        call::mark(headers, mirroring.limits.expected(Duration::ZERO));
        if let Some(local) = connection.local_address.ip() {
            super::headers::append_forwarded_for(headers, local);
        }
        if mirroring.counts_attempts {
            headers.insert(super::headers::X_ENVOY_ATTEMPT_COUNT, super::headers::number(1));
        }
        header_mutation::early(&to.config.mutations, headers, exchange);
        if let Some(host) = host(&to.config, headers) {
            headers.insert(header::HOST, host);
        }
        Some(Self {
            local: Rc::clone(local),
            cluster,
            request,
            version: connection.version(),
            https: mirroring.https,
            limit: mirroring.limits.route(),
        })
    }

    fn send(self, body: RequestBody) {
        let Self { local, cluster, request, version, https, limit } = self;
        let request = request.map(|()| body);
        tokio::task::spawn_local(async move {
            let sent = call::send_and_forget(&local, &cluster, request, version, https, limit);
            if let Err(error) = sent.await {
                tracing::debug!(cluster = &*cluster.name, %error, "a mirrored request failed");
            }
        });
    }
}

fn cluster_of(to: &MirrorTo, local: &Local, view: &View, headers: &HeaderMap) -> Option<ClusterId> {
    match &to.config.cluster {
        MirrorCluster::Cluster(_) => to.cluster,
        MirrorCluster::Header(name) => local.cluster_named(view, headers.get(name)?.to_str().ok()?),
    }
}

/// The host that a copy goes by, where it is another than the request's.
fn host(mirror: &Arc<Mirror>, headers: &HeaderMap) -> Option<HeaderValue> {
    if mirror.host.is_some() || !mirror.append_suffix {
        return mirror.host.clone();
    }
    let host = host_of(headers);
    let text = match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => format!("{name}-shadow:{port}"),
        _ => format!("{host}-shadow"),
    };
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_by_a_host_of_its_own() {
        let mirror = |append_suffix: bool, literal: Option<&'static str>| {
            Arc::new(Mirror {
                cluster: MirrorCluster::Cluster("a".into()),
                share: None,
                append_suffix,
                host: literal.map(HeaderValue::from_static),
                mutations: Vec::new(),
            })
        };
        let by = |mirror: &Arc<Mirror>, before: &'static str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(before))]);
            host(mirror, &headers)
        };
        assert_eq!(by(&mirror(true, None), "a.b").unwrap(), "a.b-shadow");
        assert_eq!(by(&mirror(true, None), "a.b:80").unwrap(), "a.b-shadow:80");
        assert_eq!(by(&mirror(false, None), "a.b"), None);
        assert_eq!(by(&mirror(true, Some("c")), "a.b").unwrap(), "c");
    }
}
