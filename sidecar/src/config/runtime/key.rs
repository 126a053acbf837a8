//! How a value gets from the runtime to who reads it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use super::{Fraction, Value, Values};

/// What is in force of one key.
#[derive(Debug)]
struct Cell {
    /// Numerator and denominator, of 32 bits each.
    fraction: AtomicU64,
    /// Bits of an `f64`.
    number: AtomicU64,
    /// 0, 1, or [`NO_FLAG`].
    flag: AtomicU8,
}

/// No fraction has a denominator of zero.
const NO_FRACTION: u64 = 0;
/// One of the many that are no number, and not one that arithmetic makes.
const NO_NUMBER: u64 = u64::MAX;
const NO_FLAG: u8 = 2;

impl Cell {
    fn new(value: Option<&Value>) -> Self {
        let cell =
            Self { fraction: AtomicU64::new(0), number: AtomicU64::new(0), flag: AtomicU8::new(0) };
        cell.set(value);
        cell
    }

    fn set(&self, value: Option<&Value>) {
        let fraction = value.and_then(|value| value.fraction);
        let bits = fraction.map(|(numerator, of)| u64::from(numerator) << 32 | u64::from(of));
        self.fraction.store(bits.unwrap_or(NO_FRACTION), Relaxed);
        let number = value.and_then(|value| value.number);
        self.number.store(number.map_or(NO_NUMBER, f64::to_bits), Relaxed);
        let flag = value.and_then(|value| value.boolean);
        self.flag.store(flag.map_or(NO_FLAG, u8::from), Relaxed);
    }
}

/// The runtime of the process: there is one, as in Envoy, because whatever names a key means the same.
static RUNTIME: LazyLock<Mutex<Runtime>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Runtime {
    values: Values,
    cells: HashMap<Box<str>, Weak<Cell>>,
}

fn runtime() -> MutexGuard<'static, Runtime> {
    // Nothing in here panics half-way through a change.
    RUNTIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts values into force, in the place of those that the same layers put there before.
pub(super) fn put_into_force(before: &Values, now: &Values) {
    let mut runtime = runtime();
    let Runtime { values, cells } = &mut *runtime;
    for key in before.keys().filter(|key| !now.contains_key(*key)) {
        values.remove(key);
    }
    let changed = now.iter().filter(|(key, value)| before.get(*key) != Some(value));
    values.extend(changed.map(|(key, value)| (key.clone(), value.clone())));
    cells.retain(|key, cell| {
        let Some(cell) = cell.upgrade() else { return false };
        if before.contains_key(key) || now.contains_key(key) {
            cell.set(now.get(key));
        }
        true
    });
}

/// A key, and what is in force of it.
#[derive(Clone)]
struct Key {
    name: Box<str>,
    cell: Arc<Cell>,
}

impl Key {
    fn new(name: &str) -> Self {
        let mut runtime = runtime();
        let known = runtime.cells.get(name).and_then(Weak::upgrade);
        let cell = known.unwrap_or_else(|| {
            let cell = Arc::new(Cell::new(runtime.values.get(name)));
            runtime.cells.insert(name.into(), Arc::downgrade(&cell));
            cell
        });
        Self { name: name.into(), cell }
    }
}

/// The key alone: what is in force at the moment is no part of what is configured.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A share that the runtime may override (`RuntimeFractionalPercent`).
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeFraction {
    default: Fraction,
    key: Option<Key>,
}

impl RuntimeFraction {
    /// With its default, and the key that overrides it unless that is empty.
    pub fn new(default: Fraction, key: &str) -> Self {
        Self { default, key: (!key.is_empty()).then(|| Key::new(key)) }
    }

    /// What is in force.
    #[inline]
    pub fn current(&self) -> Fraction {
        self.current_or(self.default)
    }

    /// What is in force, or else `default`, where that is known only now.
    #[inline]
    pub fn current_or(&self, default: Fraction) -> Fraction {
        let bits = self.key.as_ref().map_or(NO_FRACTION, |key| key.cell.fraction.load(Relaxed));
        if bits == NO_FRACTION { default } else { ((bits >> 32) as u32, bits as u32) }
    }
}

impl From<Fraction> for RuntimeFraction {
    fn from(default: Fraction) -> Self {
        Self { default, key: None }
    }
}

/// A number that the runtime may override (`RuntimeDouble`, `RuntimeUInt32`).
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeNumber {
    default: f64,
    key: Option<Key>,
}

impl RuntimeNumber {
    /// With its default, and the key that overrides it unless that is empty.
    pub fn new(default: f64, key: &str) -> Self {
        Self { default, key: (!key.is_empty()).then(|| Key::new(key)) }
    }

    /// What is in force.
    #[inline]
    pub fn current(&self) -> f64 {
        let bits = self.key.as_ref().map_or(NO_NUMBER, |key| key.cell.number.load(Relaxed));
        if bits == NO_NUMBER { self.default } else { f64::from_bits(bits) }
    }

    /// What is in force, where only a whole number that is not negative counts.
    #[inline]
    pub fn whole(&self) -> u64 {
        self.whole_or(self.default)
    }

    /// As [`RuntimeNumber::whole`] with a default that is known only now.
    #[inline]
    pub fn whole_or(&self, default: f64) -> u64 {
        let bits = self.key.as_ref().map_or(NO_NUMBER, |key| key.cell.number.load(Relaxed));
        let current = f64::from_bits(bits);
        let is_whole = bits != NO_NUMBER && current >= 0.0 && current.fract() == 0.0;
        (if is_whole { current } else { default }) as u64
    }
}

impl RuntimeNumber {
    /// One that nothing overrides.
    pub const fn constant(default: f64) -> Self {
        Self { default, key: None }
    }
}

impl From<f64> for RuntimeNumber {
    fn from(default: f64) -> Self {
        Self::constant(default)
    }
}

/// A switch that the runtime may turn (`RuntimeFeatureFlag`).
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeFlag {
    default: bool,
    key: Option<Key>,
}

impl RuntimeFlag {
    /// With its default, and the key that overrides it unless that is empty.
    pub fn new(default: bool, key: &str) -> Self {
        Self { default, key: (!key.is_empty()).then(|| Key::new(key)) }
    }

    /// What is in force.
    #[inline]
    pub fn current(&self) -> bool {
        match self.key.as_ref().map_or(NO_FLAG, |key| key.cell.flag.load(Relaxed)) {
            NO_FLAG => self.default,
            flag => flag != 0,
        }
    }
}

impl From<bool> for RuntimeFlag {
    fn from(default: bool) -> Self {
        Self { default, key: None }
    }
}
