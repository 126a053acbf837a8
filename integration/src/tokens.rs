//! Signed tokens (RFC 7519) and the keys that they are verified with (RFC 7517), new in each process.

use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Keys of every kind. Their ids are `rsa`, `p256`, `p384`, `p521`, `ed25519` and `secret`.
pub struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

static KEYS: LazyLock<Option<Keys>> = LazyLock::new(|| Keys::generate().ok());

const SECRET: &[u8] = b"a secret of the tests";

/// Base64url without padding.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Keys {
    /// The keys of this process.
    ///
    /// # Errors
    /// They could not be made.
    pub fn shared() -> Result<&'static Keys> {
        KEYS.as_ref().context("no keys")
    }

    fn generate() -> Result<Keys> {
        let curve = |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate(algorithm);
        Ok(Keys {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048)?,
            p256: curve(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            p384: curve(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            p521: curve(&ECDSA_P521_SHA512_FIXED_SIGNING)?,
            ed25519: Ed25519KeyPair::generate()?,
        })
    }

    /// All of them as a set.
    pub fn jwks(&self) -> String {
        let public = self.rsa.public_key();
        let curve = |kid: &str, crv: &str, pair: &EcdsaKeyPair| {
            let point = pair.public_key().as_ref().get(1..).unwrap_or_default().to_vec();
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "kid": kid, "crv": crv, "x": base64(x), "y": base64(y)})
        };
        let keys = json!([
            {
                "kty": "RSA",
                "kid": "rsa",
                "n": base64(public.modulus().big_endian_without_leading_zero()),
                "e": base64(public.exponent().big_endian_without_leading_zero()),
            },
            curve("p256", "P-256", &self.p256),
            curve("p384", "P-384", &self.p384),
            curve("p521", "P-521", &self.p521),
            {"kty": "OKP", "kid": "ed25519", "crv": "Ed25519", "x": base64(self.ed25519.public_key())},
            {"kty": "oct", "kid": "secret", "k": base64(SECRET)},
        ]);
        json!({ "keys": keys }).to_string()
    }

    /// A token with these claims, signed with this algorithm.
    ///
    /// # Errors
    /// There is no such algorithm.
    pub fn token(&self, algorithm: &str, payload: &Value) -> Result<String> {
        let key = match algorithm {
            "ES256" => "p256",
            "ES384" => "p384",
            "ES512" => "p521",
            "EdDSA" => "ed25519",
            secret if secret.starts_with("HS") => "secret",
            _ => "rsa",
        };
        self.token_with(algorithm, &json!({ "alg": algorithm, "kid": key }), payload)
    }

    /// The same with a header that says something else.
    ///
    /// # Errors
    /// There is no such algorithm.
    pub fn token_with(&self, algorithm: &str, header: &Value, payload: &Value) -> Result<String> {
        let signed = format!("{}.{}", base64(header.to_string()), base64(payload.to_string()));
        let signature = base64(self.sign(algorithm, signed.as_bytes())?);
        Ok(format!("{signed}.{signature}"))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Result<Vec<u8>> {
        let secret = |algorithm: hmac::Algorithm| {
            hmac::sign(&hmac::Key::new(algorithm, SECRET), message).as_ref().to_vec()
        };
        let curve = |pair: &EcdsaKeyPair| -> Result<Vec<u8>> {
            Ok(pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec())
        };
        Ok(match algorithm {
            "RS256" => self.rsa(&RSA_PKCS1_SHA256, message)?,
            "RS384" => self.rsa(&RSA_PKCS1_SHA384, message)?,
            "RS512" => self.rsa(&RSA_PKCS1_SHA512, message)?,
            "PS256" => self.rsa(&RSA_PSS_SHA256, message)?,
            "PS384" => self.rsa(&RSA_PSS_SHA384, message)?,
            "PS512" => self.rsa(&RSA_PSS_SHA512, message)?,
            "ES256" => curve(&self.p256)?,
            "ES384" => curve(&self.p384)?,
            "ES512" => curve(&self.p521)?,
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            "HS256" => secret(hmac::HMAC_SHA256),
            "HS384" => secret(hmac::HMAC_SHA384),
            "HS512" => secret(hmac::HMAC_SHA512),
            other => bail!("no algorithm {other}"),
        })
    }

    fn rsa(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), message, &mut signature)?;
        Ok(signature)
    }
}
