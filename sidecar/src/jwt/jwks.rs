//! Sets of keys, and whether a token was signed with one of them.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use serde_json::{Map, Value};

use super::token::{Algorithm, BASE64};
use super::{Status, Token};

/// Most keys of a set: each may have to be tried.
const MAX_KEYS: usize = 100;

/// A set of keys.
#[derive(Debug)]
pub struct Jwks(Box<[Key]>);

#[derive(Debug)]
struct Key {
    id: Option<Box<str>>,
    /// The only algorithm it may be used with, where it says so.
    algorithm: Option<Algorithm>,
    kind: Kind,
}

enum Kind {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The algorithm of its curve, and the point, uncompressed.
    Ec(Algorithm, Vec<u8>),
    Ed25519(Vec<u8>),
    /// A secret: never printed.
    Oct(Vec<u8>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa { n, e } => f.debug_struct("Rsa").field("n", n).field("e", e).finish(),
            Self::Ec(algorithm, point) => {
                f.debug_tuple("Ec").field(algorithm).field(point).finish()
            }
            Self::Ed25519(key) => f.debug_tuple("Ed25519").field(key).finish(),
            // Two secrets must not look the same to whoever compares configurations by their text.
            Self::Oct(secret) => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
                f.debug_tuple("Oct").field(&digest.as_ref()).finish()
            }
        }
    }
}

impl Jwks {
    /// Reads a set in JSON. As in Envoy a key that cannot be used is left out, as long as there are others.
    ///
    /// # Errors
    /// With what is wrong, if no key can be used.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let set: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|error| format!("is not a JSON object: {error}"))?;
        let keys = set.get("keys").ok_or("does not have [keys]")?;
        let list = keys.as_array().ok_or("[keys] is not an array")?;
        if list.len() > MAX_KEYS {
            return Err(format!("has more than {MAX_KEYS} keys"));
        }
        let mut wrong = None;
        let mut keys = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let Some(object) = value.as_object() else { continue };
            match key(object) {
                Ok(key) => keys.push(key),
                Err(reason) => {
                    wrong.get_or_insert_with(|| format!("keys[{index}]: {reason}"));
                }
            }
        }
        if keys.is_empty() {
            return Err(wrong.unwrap_or_else(|| "has no key".to_owned()));
        }
        Ok(Self(keys.into()))
    }

    /// Whether the token was signed with one of the keys.
    ///
    /// # Errors
    /// It was not.
    pub(crate) fn verify(&self, token: &Token) -> Result<(), Status> {
        // What is critical has to be understood (RFC 7515 section 4.1.11), and we understand no extension.
        if token.is_critical {
            return Err(Status::VerificationFails);
        }
        let named = |key: &&Key| match (&key.id, &token.key_id) {
            (Some(ours), Some(theirs)) => ours == theirs || ours.is_empty() || theirs.is_empty(),
            _ => true,
        };
        let fits = |key: &&Key| key.algorithm.is_none_or(|only| only == token.algorithm);
        let mut result = Status::NoMatchingKey;
        for key in self.0.iter().filter(named).filter(fits) {
            match key.kind.verify(token) {
                Ok(()) => return Ok(()),
                Err(Status::Ed25519SignatureLength) => return Err(Status::Ed25519SignatureLength),
                Err(_) => result = Status::VerificationFails,
            }
        }
        Err(result)
    }
}

impl Kind {
    /// The algorithm of the token counts only among those that fit the key.
    fn verify(&self, token: &Token) -> Result<(), Status> {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let is_right = match self {
            Self::Rsa { n, e } => {
                let parameters = match token.algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
                    _ => return Err(Status::VerificationFails),
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Self::Ec(algorithm, _) if *algorithm != token.algorithm => false,
            Self::Ec(algorithm, point) => {
                let curve = match algorithm {
                    Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
                    _ => &ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(curve, point).verify(message, signature).is_ok()
            }
            Self::Ed25519(_) if token.algorithm != Algorithm::EdDsa => false,
            Self::Ed25519(_) if signature.len() != 64 => {
                return Err(Status::Ed25519SignatureLength);
            }
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            Self::Oct(secret) => {
                let algorithm = match token.algorithm {
                    Algorithm::Hs256 => hmac::HMAC_SHA256,
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => return Err(Status::VerificationFails),
                };
                hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
            }
        };
        if is_right { Ok(()) } else { Err(Status::VerificationFails) }
    }
}

fn key(object: &Map<String, Value>) -> Result<Key, String> {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let text =
            text(name).ok_or_else(|| format!("[{name}] is required and must be a string"))?;
        BASE64.decode(text).map_err(|_| format!("[{name}] is not Base64url"))
    };
    let alg = text("alg").unwrap_or_default();
    let algorithm = Algorithm::named(alg);
    let kind = text("kty").ok_or("[kty] is required and must be a string")?;
    let only = |prefixes: &[&str]| {
        if alg.is_empty() || prefixes.iter().any(|prefix| alg.starts_with(prefix)) {
            return Ok(());
        }
        Err(format!("[alg] {alg:?} does not fit [kty] {kind:?}"))
    };
    let kind = match kind {
        "RSA" => {
            only(&["RS", "PS"])?;
            let (n, e) = (bytes("n")?, bytes("e")?);
            let length = n.iter().skip_while(|byte| **byte == 0).count() * 8;
            if !(2048..=8192).contains(&length) {
                return Err(format!("an RSA key of {length} bits: 2048 to 8192"));
            }
            Kind::Rsa { n: without_zeros(n), e: without_zeros(e) }
        }
        "EC" => {
            only(&["ES"])?;
            let of_curve = match text("crv") {
                None | Some("") => algorithm.unwrap_or(Algorithm::Es256),
                Some("P-256") => Algorithm::Es256,
                Some("P-384") => Algorithm::Es384,
                Some("P-521") => Algorithm::Es512,
                Some(other) => return Err(format!("[crv] {other:?} is not supported")),
            };
            if algorithm.is_some_and(|algorithm| algorithm != of_curve) {
                return Err(format!("[alg] {alg:?} does not fit [crv]"));
            }
            let length: usize = match of_curve {
                Algorithm::Es256 => 32,
                Algorithm::Es384 => 48,
                _ => 66,
            };
            let mut point = vec![4];
            for coordinate in [bytes("x")?, bytes("y")?] {
                let coordinate = without_zeros(coordinate);
                let missing = length.checked_sub(coordinate.len());
                let missing = missing.ok_or("[x] or [y] is too long")?;
                point.extend(std::iter::repeat_n(0, missing));
                point.extend(coordinate);
            }
            Kind::Ec(of_curve, point)
        }
        "OKP" => {
            only(&["EdDSA"])?;
            if text("crv") != Some("Ed25519") {
                return Err("[crv] must be Ed25519".to_owned());
            }
            let key = bytes("x")?;
            if key.len() != 32 {
                return Err("[x] is not 32 bytes".to_owned());
            }
            Kind::Ed25519(key)
        }
        "oct" => {
            only(&["HS"])?;
            let secret = bytes("k")?;
            if secret.is_empty() {
                return Err("[k] is empty".to_owned());
            }
            Kind::Oct(secret)
        }
        other => return Err(format!("[kty] {other:?} is not supported")),
    };
    // An algorithm of a name that nobody knows fits no token.
    if !alg.is_empty() && algorithm.is_none() {
        return Err(format!("[alg] {alg:?} is not supported"));
    }
    Ok(Key { id: text("kid").map(Into::into), algorithm, kind })
}

fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}
