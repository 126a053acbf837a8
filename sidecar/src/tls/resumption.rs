//! How long a TLS session may be resumed.
//!
//! A resumed handshake shows no certificates and so verifies none. A configuration is never older than its trust
//! (see [`super`]), so what could have changed since the session began is only the time: sessions are given up before
//! a certificate that was verified for one of them expires. Then the handshake is a full one, and nobody notices.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::server::ProducesTickets;
use rustls_pki_types::{ServerName, UnixTime};

/// Clocks are compared in whole seconds, and a handshake takes a moment.
const MARGIN_SECONDS: u64 = 1;

/// When the first of the certificates expires that were verified and are valid still.
#[derive(Debug)]
pub(super) struct SoonestExpiry(AtomicU64);

impl SoonestExpiry {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Takes note of a certificate that was verified at `now` and expires at `expiry`.
    pub(super) fn note(&self, expiry: u64, now: u64) {
        let update = |soonest: u64| Some(if soonest <= now { expiry } else { soonest.min(expiry) });
        // The closure always gives a value, so there is nothing to handle.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

fn is_over(deadline: u64) -> bool {
    now().saturating_add(MARGIN_SECONDS) >= deadline
}

/// Tickets of a server with the time after which they no longer open, in front of what the library puts in.
pub(super) struct Tickets {
    inner: Arc<dyn ProducesTickets>,
    expiry: Arc<SoonestExpiry>,
}

impl Tickets {
    pub(super) fn new(inner: Arc<dyn ProducesTickets>, expiry: Arc<SoonestExpiry>) -> Self {
        Self { inner, expiry }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = self.expiry.get().saturating_sub(now());
        self.inner.lifetime().min(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let deadline = self.expiry.get();
        if is_over(deadline) {
            return None;
        }
        let mut with_deadline = Vec::with_capacity(8 + plain.len());
        with_deadline.extend_from_slice(&deadline.to_be_bytes());
        with_deadline.extend_from_slice(plain);
        self.inner.encrypt(&with_deadline)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let with_deadline = self.inner.decrypt(cipher)?;
        let (deadline, plain) = with_deadline.split_first_chunk::<8>()?;
        (!is_over(u64::from_be_bytes(*deadline))).then(|| plain.to_vec())
    }
}

/// Sessions of a client: the last ones, each until its deadline. One store serves one context, so that all its sessions
/// were verified in the same way, whichever endpoint they are with.
pub(super) struct Sessions {
    most: usize,
    expiry: Arc<SoonestExpiry>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    hints: VecDeque<(ServerName<'static>, NamedGroup)>,
    tls12: VecDeque<(ServerName<'static>, u64, Tls12ClientSessionValue)>,
    tls13: VecDeque<(ServerName<'static>, u64, Tls13ClientSessionValue)>,
}

impl Sessions {
    pub(super) fn new(most: usize, expiry: Arc<SoonestExpiry>) -> Self {
        Self { most, expiry, kept: Mutex::default() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What a panicking thread left behind are whole sessions, or their absence.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sessions hold keys.
        f.debug_struct("Sessions").field("most", &self.most).finish_non_exhaustive()
    }
}

/// Adds at the end and drops from the front what is too much.
fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    queue.push_back(item);
    while queue.len() > most {
        queue.pop_front();
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        let mut kept = self.kept();
        kept.hints.retain(|(name, _)| *name != server_name);
        push(&mut kept.hints, (server_name, group), self.most.max(1));
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        let kept = self.kept();
        kept.hints.iter().find(|(name, _)| name == server_name).map(|(_, group)| *group)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        let mut kept = self.kept();
        kept.tls12.retain(|(name, _, _)| *name != server_name);
        push(&mut kept.tls12, (server_name, self.expiry.get(), value), self.most);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let mut kept = self.kept();
        kept.tls12.retain(|(_, deadline, _)| !is_over(*deadline));
        kept.tls12
            .iter()
            .find(|(name, _, _)| name == server_name)
            .map(|(_, _, value)| value.clone())
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.kept().tls12.retain(|(name, _, _)| name != server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        push(&mut self.kept().tls13, (server_name, self.expiry.get(), value), self.most);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        let mut kept = self.kept();
        kept.tls13.retain(|(_, deadline, _)| !is_over(*deadline));
        // The newest lives longest.
        let index = kept.tls13.iter().rposition(|(name, _, _)| name == server_name)?;
        kept.tls13.remove(index).map(|(_, _, value)| value)
    }
}
