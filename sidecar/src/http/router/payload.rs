//! The body of a request, from one attempt to the next.

use std::rc::Rc;

use http::Request;
use http::request::Parts;

use crate::http::body::{ClientBody, Progress, RequestBody, Source, Whole};
use crate::http::exchange::Exchange;
use crate::http::matching::is_grpc;
use crate::http::replay::Kept;

pub(super) struct Payload {
    load: Load,
    pub(super) grpc: bool,
}

impl Payload {
    pub(super) fn new(body: ClientBody, exchange: &Exchange, limit: u64, retries: bool) -> Self {
        let load = match (&exchange.progress, body) {
            (None, _) | (Some(_), ClientBody::Empty) => Load::Empty,
            (Some(_), ClientBody::Whole(whole)) => Load::Whole(whole),
            (Some(_), ClientBody::Kept(kept)) => Load::Kept(kept),
            (Some(progress), ClientBody::Incoming(body)) if retries => {
                Load::Kept(Kept::new(body, Rc::clone(progress), limit))
            }
            (Some(progress), ClientBody::Incoming(body)) => {
                Load::Once(Some(body), Rc::clone(progress))
            }
        };
        Self { load, grpc: false }
    }

    /// The request for the next attempt; `last` if there is none after it.
    pub(super) fn request(&mut self, parts: &mut Parts, last: bool) -> Request<RequestBody> {
        self.grpc = is_grpc(&parts.headers);
        let body = match &mut self.load {
            Load::Empty => RequestBody::Empty,
            Load::Once(body, progress) => match body.take() {
                Some(body) => RequestBody::Streaming(body, Rc::clone(progress)),
                None => RequestBody::Empty,
            },
            Load::Kept(kept) => RequestBody::Replay(kept.attempt()),
            Load::Whole(whole) => RequestBody::Whole(whole.clone()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        if last {
            // Nobody looks at these any more.
            *request.uri_mut() = std::mem::take(&mut parts.uri);
            *request.headers_mut() = std::mem::take(&mut parts.headers);
        } else {
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
        }
        request
    }

    pub(super) fn can_replay(&self) -> bool {
        match &self.load {
            Load::Empty | Load::Whole(..) => true,
            Load::Once(..) => false,
            Load::Kept(kept) => kept.can_replay(),
        }
    }

    /// All of the body, if it is here and was kept; there may be none.
    pub(super) fn whole(&self) -> Option<Option<Box<Whole>>> {
        match &self.load {
            Load::Empty => Some(None),
            Load::Whole(whole) => Some(Some(whole.clone())),
            Load::Once(..) => None,
            Load::Kept(kept) => kept.whole().map(Some),
        }
    }

    pub(super) fn commit(&self) {
        if let Load::Kept(kept) = &self.load {
            kept.commit();
        }
    }
}

/// Whether it can be sent again.
enum Load {
    Empty,
    Once(Option<Source>, Rc<Progress>),
    Kept(Rc<Kept>),
    Whole(Box<Whole>),
}
