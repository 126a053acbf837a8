//! The PROXY protocol: what is kept of what clients' proxies say, and what endpoints are told.

/// A value with a type, as version 2 carries them behind the addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// What it is; the protocol gives some of the numbers a meaning.
    pub kind: u8,
    /// Up to 65,535 bytes.
    pub value: Box<[u8]>,
}

/// Which values are meant, by their types.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum TlvTypes {
    /// None.
    #[default]
    None,
    /// Every one.
    All,
    /// Those of these types.
    These(Box<[u8]>),
}

impl TlvTypes {
    /// Whether values of a type are meant.
    pub fn contain(&self, kind: u8) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(kinds) => kinds.contains(&kind),
        }
    }
}

/// A validated `ProxyProtocolConfig`: an endpoint is told, before anything else, whom a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamProxyProtocol {
    /// How it is told.
    pub version: Version,
    /// What of the values that the client's proxy has sent is passed on.
    pub pass_through: TlvTypes,
    /// Values of our own, which come before others and in place of those of the same type.
    pub added: Box<[Tlv]>,
}

/// The version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text, with the addresses alone.
    One,
    /// Binary.
    Two,
}
