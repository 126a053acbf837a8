//! What health checks say of an endpoint.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// One thing that health checks may say of an endpoint. Envoy's health flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flag {
    /// Its checks fail, or none has passed yet: `failed_active_hc`.
    Failed = 1,
    /// It counts nowhere before its first check is over: `pending_active_hc`.
    Pending = 1 << 1,
    /// The last check failed by its timeout: `active_hc_timeout`.
    TimedOut = 1 << 2,
    /// Its checks pass, but it says that it is degraded: `degraded_active_hc`.
    Degraded = 1 << 3,
    /// A response said that it is to get nothing more: `excluded_via_immediate_hc_fail`.
    Excluded = 1 << 4,
    /// Discovery no longer has it; it stays while its checks pass: `pending_dynamic_removal`.
    Left = 1 << 5,
    /// It is checked at all.
    Checked = 1 << 6,
}

/// Everything that health checks say of an endpoint; nothing, if it is not checked.
#[derive(Debug, Default)]
pub(crate) struct Flags(AtomicU8);

impl Flags {
    /// Whether this is said.
    #[inline]
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.0.load(Relaxed) & flag as u8 != 0
    }

    /// Whether any of these is said.
    #[inline]
    pub(crate) fn has_any(&self, flags: &[Flag]) -> bool {
        let said = self.0.load(Relaxed);
        flags.iter().any(|flag| said & *flag as u8 != 0)
    }

    /// Says it, or no longer. Returns whether it was said before.
    pub(crate) fn set(&self, flag: Flag, on: bool) -> bool {
        let flag = flag as u8;
        let before =
            if on { self.0.fetch_or(flag, Relaxed) } else { self.0.fetch_and(!flag, Relaxed) };
        before & flag != 0
    }

    /// Says nothing any more.
    pub(crate) fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}
