//! Hedging: an attempt over its timeout goes on beside the next, and the first good response wins
//! (`hedge_on_per_try_timeout`).
//!
//! As in Envoy only one attempt at a time has its timeout still before it, and a response that the policy would try again
//! is passed over as long as another attempt may do better.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::send::send;
use super::tries::{Tries, discard, note, note_attempt};
use super::{Answer, Refusal};
use crate::cluster::{Endpoint, Outcome};
use crate::http::attempt::Attempt;
use crate::http::exchange::Exchange;
use crate::http::failures::timed_out;
use crate::http::limits::{Expired, within};
use crate::http::retry::{Attempted, Verdict};
use crate::http::timeout::Timer;
use crate::local::ClusterRef;
use crate::upstream::Failure;

type Ended = (Box<Attempt>, Result<Response<Incoming>, Failure>);

/// An attempt without a response yet.
struct Running<'r> {
    cluster: ClusterRef,
    endpoint: Arc<Endpoint>,
    began: Instant,
    /// Its timeout is over.
    late: bool,
    /// Another attempt was begun because of that.
    hedged: bool,
    future: Pin<Box<dyn Future<Output = Ended> + 'r>>,
}

enum Event {
    /// The running attempt of this index.
    Ended(usize, Ended),
    /// The back-off is over.
    Begin,
}

/// Tries until there is a response or a reason.
pub(super) async fn hedged(
    mut tries: Tries<'_>,
    exchange: &mut Exchange,
    request: &mut Parts,
    mut timer: Timer,
) -> Result<Answer, Refusal> {
    let mut running = vec![begin(&mut tries, exchange, request)?];
    let mut pause: Option<Pin<Box<Sleep>>> = None;
    loop {
        let current = running.iter().find(|attempt| !attempt.late).map(|attempt| attempt.began);
        let next = poll_fn(|cx| {
            for (at, attempt) in running.iter_mut().enumerate() {
                if let Poll::Ready(ended) = attempt.future.as_mut().poll(cx) {
                    return Poll::Ready(Event::Ended(at, ended));
                }
            }
            match &mut pause {
                Some(pause) => pause.as_mut().poll(cx).map(|()| Event::Begin),
                None => Poll::Pending,
            }
        });
        let event = within(next, &mut timer, exchange, tries.limits, current).await;
        match event {
            Ok(Event::Begin) => {
                pause = None;
                match begin(&mut tries, exchange, request) {
                    Ok(attempt) => running.push(attempt),
                    Err(refusal) if running.is_empty() => return Err(refusal),
                    Err(_) => {} // one that is running may still be answered
                }
            }
            Ok(Event::Ended(at, (mut attempt, outcome))) => {
                let Running { began, hedged, .. } = running.swap_remove(at);
                note_attempt(&attempt, began, exchange);
                let tried = Ok(outcome);
                let verdict = if hedged {
                    tries.count(&mut attempt, &tried, exchange)?;
                    already_tried_again(&tries, &tried)
                } else {
                    tries.judge(&mut attempt, &tried, exchange, &request.method)?
                };
                let others = !running.is_empty() || pause.is_some();
                match (verdict, tried) {
                    (Verdict::After(delay), tried) => {
                        discard(&tried, &mut attempt, exchange);
                        pause = Some(Box::pin(tokio::time::sleep(delay)));
                    }
                    (Verdict::LimitExceeded | Verdict::Overflow, Ok(Ok(response))) if others => {
                        // As in Envoy 1.40 only the response of one that was hedged counts.
                        if hedged {
                            attempt.is_taken(response.status());
                        }
                    }
                    (_, Ok(Ok(response))) => {
                        return Ok(tries.answer(response, attempt, timer, exchange, request));
                    }
                    (_, _) if others => {}
                    (_, tried) => return Err(tries.refusal(&tried, exchange)),
                }
            }
            Err(Expired::PerTry | Expired::PerTryIdle) => {
                let Some(late) = running.iter_mut().find(|attempt| !attempt.late) else {
                    continue;
                };
                late.late = true;
                late.cluster.report(&late.endpoint, Outcome::Timeout);
                tries.timed_out_before = true;
                if let Some(retries) = &mut tries.retries
                    && tries.payload.can_replay()
                {
                    let verdict = retries.hedge(tries.cluster, tries.priority);
                    note(verdict, exchange);
                    if let Verdict::After(delay) = verdict {
                        late.hedged = true;
                        pause = Some(Box::pin(tokio::time::sleep(delay)));
                    }
                }
            }
            Err(expired) => {
                if expired == Expired::Route {
                    let count = u64::try_from(running.len()).unwrap_or(u64::MAX);
                    tries.cluster.stats.local().upstream_rq_timeout.add(count);
                }
                for attempt in running.iter().filter(|attempt| !attempt.late) {
                    attempt.cluster.report(&attempt.endpoint, Outcome::Timeout);
                }
                let mut reply = timed_out(expired, tries.limits, exchange, None);
                // As in Envoy each of them counts.
                for _ in &running {
                    reply = tries.charged(reply);
                }
                return Err(reply);
            }
        }
    }
}

fn begin<'r>(
    tries: &mut Tries<'r>,
    exchange: &mut Exchange,
    request: &mut Parts,
) -> Result<Running<'r>, Refusal> {
    let (mut attempt, outgoing) = tries.begin(exchange, request)?;
    let Tries { connection, accepted, .. } = *tries;
    let (cluster, endpoint) = (attempt.cluster().clone(), Arc::clone(&attempt.pool().endpoint));
    let future = Box::pin(async move {
        let outcome = send(&mut attempt, outgoing, connection, accepted.https).await;
        (attempt, outcome)
    });
    Ok(Running { cluster, endpoint, began: Instant::now(), late: false, hedged: false, future })
}

/// An attempt in whose place another was begun is not tried again, but a bad response of it is worth waiting for a better.
fn already_tried_again(tries: &Tries<'_>, tried: &super::tries::Tried) -> Verdict {
    match (tried, &tries.retries) {
        (Ok(Ok(response)), Some(retries))
            if retries.would(Attempted::Response(response.status(), response.headers())) =>
        {
            Verdict::LimitExceeded
        }
        _ => Verdict::No,
    }
}
