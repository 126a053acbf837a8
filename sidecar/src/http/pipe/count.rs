//! Messages of a gRPC call, counted as they pass.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use crate::http::body::Progress;
use crate::http::headers::GRPC_STATUS;
use crate::http::stream_state::GrpcMessages;
use crate::stats::GrpcMethodCells;

/// Looks at one direction of a call, and leaves it as it is.
pub(crate) struct Counting {
    cells: Option<Arc<GrpcMethodCells>>,
    what: What,
    messages: Messages,
    noted: Option<Rc<GrpcMessages>>,
}

enum What {
    Request,
    /// `messages`: there are any, as the head of the response says.
    Response {
        messages: bool,
        sent: Option<Sent>,
    },
}

/// What the time of the response is counted from.
pub(crate) struct Sent {
    /// When the attempt began.
    pub(crate) began: Instant,
    /// The body of the request, if it has one.
    pub(crate) progress: Option<Rc<Progress>>,
}

impl Sent {
    /// Records the time from the end of the request until now, if it has ended.
    pub(crate) fn record(&self, cells: &GrpcMethodCells) {
        let completed = match &self.progress {
            Some(progress) => progress.complete.get(),
            None => Some(self.began),
        };
        if let Some(completed) = completed {
            let time = completed.max(self.began).elapsed().as_millis();
            cells.upstream_rq_time.record(u64::try_from(time).unwrap_or(u64::MAX));
        }
    }
}

impl Counting {
    pub(crate) fn request(
        cells: Option<Arc<GrpcMethodCells>>,
        noted: Option<Rc<GrpcMessages>>,
    ) -> Self {
        Self { cells, what: What::Request, messages: Messages::default(), noted }
    }

    pub(crate) fn response(
        cells: Option<Arc<GrpcMethodCells>>,
        messages: bool,
        sent: Option<Sent>,
        noted: Option<Rc<GrpcMessages>>,
    ) -> Self {
        Self {
            cells,
            what: What::Response { messages, sent },
            messages: Messages::default(),
            noted,
        }
    }

    pub(super) fn data(&mut self, piece: &[u8]) {
        if matches!(self.what, What::Response { messages: false, .. }) {
            return;
        }
        let begun = self.messages.begun_in(piece);
        let is_request = matches!(self.what, What::Request);
        if let Some(cells) = &self.cells {
            let counter = match is_request {
                true => &cells.request_message_count,
                false => &cells.response_message_count,
            };
            counter.add(begun);
        }
        if let Some(noted) = &self.noted {
            let count = if is_request { &noted.request } else { &noted.response };
            count.set(count.get() + begun);
            noted.any.set(true);
        }
    }

    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        let (What::Response { sent, .. }, Some(cells)) = (&self.what, &self.cells) else { return };
        if let Some(status) = trailers.get(GRPC_STATUS) {
            cells.ended(status.as_bytes());
        }
        if let Some(sent) = sent {
            sent.record(cells);
        }
    }
}

/// Finds the messages in a body: each begins with a flag and its length.
#[derive(Default)]
struct Messages {
    /// Bytes of the head of a message that were there.
    head: u8,
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

impl Messages {
    /// So many messages begin in a piece.
    fn begun_in(&mut self, mut piece: &[u8]) -> u64 {
        let mut begun = 0;
        loop {
            let skipped = (self.left as usize).min(piece.len());
            self.left -= u32::try_from(skipped).unwrap_or(self.left);
            let Some((byte, rest)) = piece.get(skipped..).and_then(<[u8]>::split_first) else {
                return begun;
            };
            piece = rest;
            match self.head {
                0 => begun += 1,
                _ => self.length = self.length << 8 | u32::from(*byte),
            }
            self.head += 1;
            if self.head == 5 {
                *self = Self { left: self.length, ..Self::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_the_pieces_end() {
        let body = b"\0\0\0\0\x03abc\0\0\0\0\0\x01\0\0\x01\x00";
        let body: Vec<u8> = body.iter().copied().chain([7; 256]).chain([0]).collect();
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let begun: u64 = body.chunks(size).map(|piece| messages.begun_in(piece)).sum();
            assert_eq!(begun, 4, "{size}");
        }
    }
}
