//! An endpoint with several addresses: they are tried one after the other without waiting for the one before to fail, and
//! the first connection that comes to be is taken ("happy eyeballs", RFC 8305).

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::config::cluster::HappyEyeballs;

/// An attempt has so long before the next begins beside it, as in Envoy.
const HEAD_START: Duration = Duration::from_millis(300);

/// The addresses in the order in which they are tried: so many of the first family, one of the other, and so on.
pub(super) fn order(
    first: SocketAddr,
    more: &[SocketAddr],
    config: Option<&HappyEyeballs>,
) -> Vec<SocketAddr> {
    let wanted = config.and_then(|config| config.first_is_ipv6);
    let has = |ipv6: bool| first.is_ipv6() == ipv6 || more.iter().any(|it| it.is_ipv6() == ipv6);
    let ipv6_first = wanted.filter(|ipv6| has(*ipv6)).unwrap_or(first.is_ipv6());
    let count = config.map_or(1, |config| config.first_count).max(1) as usize;
    let all = || std::iter::once(first).chain(more.iter().copied());
    let mut firsts = all().filter(|it| it.is_ipv6() == ipv6_first).peekable();
    let mut others = all().filter(|it| it.is_ipv6() != ipv6_first).peekable();
    let mut ordered = Vec::with_capacity(1 + more.len());
    while firsts.peek().is_some() || others.peek().is_some() {
        ordered.extend(firsts.by_ref().take(count));
        ordered.extend(others.next());
    }
    ordered
}

/// The first connection that comes to be.
///
/// # Errors
/// What the last attempt to fail says, once all have.
pub(super) async fn first<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts: Vec<Pin<Box<F>>> = Vec::new();
    let mut next = Box::pin(sleep_until(Instant::now()));
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    poll_fn(|cx| {
        loop {
            let mut index = 0;
            let mut failed = false;
            while let Some(attempt) = attempts.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(connection)) => return Poll::Ready(Ok(connection)),
                    Poll::Ready(Err(error)) => {
                        failure = error;
                        failed = true;
                        drop(attempts.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            // One that failed makes room for the next at once.
            if waiting.len() > 0 && (failed || next.as_mut().poll(cx).is_ready()) {
                attempts.extend(waiting.next().map(|address| Box::pin(connect(address))));
                next.as_mut().reset(Instant::now() + HEAD_START);
                continue;
            }
            if attempts.is_empty() && waiting.len() == 0 {
                let failure = std::mem::replace(&mut failure, io::ErrorKind::Other.into());
                return Poll::Ready(Err(failure));
            }
            return Poll::Pending;
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_first_address_says_which_begins() {
        let all = addresses(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "[::1]:1", "[::2]:1"]);
        let ordered = |config: Option<HappyEyeballs>| -> Vec<String> {
            let ordered = order(all[0], &all[1..], config.as_ref());
            ordered.iter().map(|it| it.ip().to_string()).collect()
        };
        assert_eq!(ordered(None), ["1.1.1.1", "::1", "1.1.1.2", "::2", "1.1.1.3"]);
        let config =
            |first_is_ipv6, first_count| Some(HappyEyeballs { first_is_ipv6, first_count });
        let six = ["::1", "1.1.1.1", "::2", "1.1.1.2", "1.1.1.3"];
        assert_eq!(ordered(config(Some(true), 1)), six);
        let two = ["1.1.1.1", "1.1.1.2", "::1", "1.1.1.3", "::2"];
        assert_eq!(ordered(config(None, 2)), two);
        let four = addresses(&["1.1.1.1:1", "1.1.1.2:1"]);
        let only = order(four[0], &four[1..], config(Some(true), 1).as_ref());
        assert_eq!(only, four, "there is none of that family");
    }

    /// What an attempt to connect does: the milliseconds until it is over, and whether it comes to something.
    type Plan = fn(u8) -> (u64, bool);

    /// Connects by a plan. Returns the last part of the address, and when each attempt began.
    async fn run(plan: Plan) -> (Option<u8>, Vec<(u8, u64)>) {
        let began = Instant::now();
        let log = RefCell::new(Vec::new());
        let connect = |address: SocketAddr| {
            let SocketAddr::V4(address) = address else { panic!("version 4") };
            let [.., last] = address.ip().octets();
            log.borrow_mut().push((last, began.elapsed().as_millis() as u64));
            let (delay, succeeds) = plan(last);
            async move {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                if succeeds { Ok(last) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        };
        let all = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        let taken = first(all, connect).await.ok();
        (taken, log.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_taken_if_it_is_quick() {
        assert_eq!(run(|_| (10, true)).await, (Some(1), vec![(1, 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_gets_company_and_may_win_all_the_same() {
        let plan: Plan = |last| if last == 1 { (500, true) } else { (400, true) };
        assert_eq!(run(plan).await, (Some(1), vec![(1, 0), (2, 300)]));
        let plan: Plan = |last| if last == 1 { (5000, true) } else { (100, true) };
        assert_eq!(run(plan).await, (Some(2), vec![(1, 0), (2, 300)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_begins_as_soon_as_one_fails() {
        let plan: Plan = |last| if last == 3 { (10, true) } else { (20, false) };
        assert_eq!(run(plan).await, (Some(3), vec![(1, 0), (2, 20), (3, 40)]));
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_when_all_have_failed() {
        let (taken, began) = run(|_| (400, false)).await;
        assert_eq!((taken, began), (None, vec![(1, 0), (2, 300), (3, 400)]));
    }
}
