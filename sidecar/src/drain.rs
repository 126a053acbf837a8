//! Telling connections that they are to end: from a token that the control thread cancels, to every connection of a
//! worker that it concerns.
//!
//! A connection looks at its signal each time it is polled. Looking at the token itself would take its lock, which all
//! workers share; so each worker has one task for each token, which passes the word on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;

/// One worker's copy of a token.
#[derive(Default)]
pub(crate) struct Signal {
    given: Cell<bool>,
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Signal {
    /// A signal that is given when `token` is cancelled.
    pub(crate) fn of(token: &CancellationToken) -> Rc<Self> {
        let signal = Rc::new(Self::default());
        if token.is_cancelled() {
            signal.given.set(true);
            return signal;
        }
        let (token, weak) = (token.clone(), Rc::downgrade(&signal));
        tokio::task::spawn_local(async move {
            token.cancelled().await;
            if let Some(signal) = weak.upgrade() {
                signal.give();
            }
        });
        signal
    }

    /// Whether it was given.
    pub(crate) fn is_given(&self) -> bool {
        self.given.get()
    }

    fn give(&self) {
        self.given.set(true);
        let waiting: Vec<Waker> =
            self.waiting.borrow_mut().iter_mut().filter_map(Option::take).collect();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Someone who waits for a signal.
pub(crate) struct Listening {
    signal: Rc<Signal>,
    place: Option<usize>,
}

impl Listening {
    pub(crate) fn to(signal: &Rc<Signal>) -> Self {
        Self { signal: Rc::clone(signal), place: None }
    }

    /// Whether the signal was given.
    pub(crate) fn is_given(&self) -> bool {
        self.signal.is_given()
    }

    /// Ready once the signal was given.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.is_given() {
            return Poll::Ready(());
        }
        let mut waiting = self.signal.waiting.borrow_mut();
        let place = *self.place.get_or_insert_with(|| {
            self.signal.free.borrow_mut().pop().unwrap_or_else(|| {
                waiting.push(None);
                waiting.len() - 1
            })
        });
        if let Some(slot) = waiting.get_mut(place)
            && !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *slot = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            if let Some(slot) = self.signal.waiting.borrow_mut().get_mut(place) {
                *slot = None;
            }
            self.signal.free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(flavor = "local")]
    async fn a_cancelled_token_reaches_everyone_who_listens_and_later_ones_at_once() {
        let token = CancellationToken::new();
        let signal = Signal::of(&token);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let mut listening = Listening::to(&signal);
                tokio::task::spawn_local(async move { poll_fn(|cx| listening.poll(cx)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!signal.is_given());
        token.cancel();
        for task in waiting {
            task.await.unwrap();
        }
        assert!(signal.is_given());
        assert!(Signal::of(&token).is_given());
    }

    #[tokio::test(flavor = "local")]
    async fn places_are_used_again() {
        let signal = Signal::of(&CancellationToken::new());
        for _ in 0..10 {
            let mut listening = Listening::to(&signal);
            poll_fn(|cx| {
                assert!(listening.poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(signal.waiting.borrow().len(), 1);
    }
}
