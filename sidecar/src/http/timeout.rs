//! Timers that cost nothing while nothing times out.
//!
//! Putting a timer into the runtime's wheel and taking it out again for every request would cost more than the request's
//! routing. Here a timer that was armed for one request serves the next one too: it stays in the wheel, fires at the
//! earlier instant, sees that the deadline has moved on, and is armed again. A busy worker so touches the wheel about
//! once per timeout instead of twice per request.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// How many unused timers a worker keeps.
const KEPT: usize = 1024;

/// The unused timers of a worker. Each may still be armed for a deadline of an earlier user.
#[derive(Default)]
pub(crate) struct Timers {
    free: RefCell<Vec<Pin<Box<Sleep>>>>,
}

/// One timer, on loan from its worker. It is armed when it is first polled with a deadline.
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    timers: Rc<Timers>,
}

impl Timer {
    /// A timer of this worker.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        Self { sleep: None, timers: Rc::clone(timers) }
    }

    /// Ready once `deadline` has passed. The deadline may be another one at every call; `None` is never.
    ///
    /// Unlike a `Sleep`, it may stay armed for an earlier instant than the deadline, and then wakes the task once in vain.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| {
            let free = self.timers.free.borrow_mut().pop();
            free.unwrap_or_else(|| Box::pin(sleep_until(deadline)))
        });
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(sleep) = self.sleep.take() {
            let mut free = self.timers.free.borrow_mut();
            if free.len() < KEPT {
                free.push(sleep);
            }
        }
    }
}

/// The earlier of two deadlines, where `None` is never.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn wait(timer: &mut Timer, deadline: Instant) {
        poll_fn(|cx| timer.poll(cx, Some(deadline))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_at_its_deadline_whatever_it_was_armed_for_before() {
        let timers = Rc::new(Timers::default());
        let start = Instant::now();
        for (before, then) in [(5, 10), (10, 5), (7, 7)] {
            let base = Instant::now();
            {
                let mut first = Timer::new(&timers);
                let deadline = Some(base + Duration::from_secs(before));
                poll_fn(|cx| {
                    assert!(first.poll(cx, deadline).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            assert_eq!(timers.free.borrow().len(), 1);
            let mut second = Timer::new(&timers);
            wait(&mut second, base + Duration::from_secs(then)).await;
            assert_eq!(base.elapsed().as_secs(), then);
        }
        assert_eq!(start.elapsed().as_secs(), 22);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_may_move_while_the_timer_runs() {
        let timers = Rc::new(Timers::default());
        let mut timer = Timer::new(&timers);
        let start = Instant::now();
        let mut deadline = start + Duration::from_secs(1);
        poll_fn(|cx| {
            let polled = timer.poll(cx, Some(deadline));
            deadline = start + Duration::from_secs(3);
            polled
                .map(|()| ())
                .is_pending()
                .then_some(())
                .map_or(Poll::Ready(()), |()| Poll::Pending)
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_nothing_is_armed() {
        let timers = Rc::new(Timers::default());
        let mut timer = Timer::new(&timers);
        poll_fn(|cx| {
            assert!(timer.poll(cx, None).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(timer.sleep.is_none());
    }
}
