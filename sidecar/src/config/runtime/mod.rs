//! Runtime: values by key that override what stands in a configuration, while it is in force (`layered_runtime`, RTDS).
//!
//! A configuration that names a key is converted to a value with a default ([`RuntimeFraction`], [`RuntimeNumber`],
//! [`RuntimeFlag`]). The key is looked up then, once: what is read per request is one atomic, which a change of the runtime sets.
//!
//! Reading order: [`value`] (what may stand behind a key), [`key`] (how it gets to who reads it), [`layers`] (which layer
//! wins).

pub use super::convert::runtime_layer as from_proto;

mod key;
mod layers;
mod value;

pub use key::{RuntimeFlag, RuntimeFraction, RuntimeNumber};
pub use layers::{Entry, LayerSource, Layers, RuntimeLayer};
pub use value::{Value, Values, of_struct, of_text};

/// A share of something: the numerator over the denominator. More than one is one.
pub type Fraction = (u32, u32);
