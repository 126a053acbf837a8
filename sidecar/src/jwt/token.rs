//! What stands in a token: `HEADER.PAYLOAD.SIGNATURE`, each part in Base64url.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::Status;

/// Padding is not needed, and allowed.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The algorithms there are. `none` is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // named as in RFC 7518
pub(crate) enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token that is well-formed. Whether it is genuine is another question.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// All of its header.
    pub(crate) header: Map<String, Value>,
    /// All of its claims.
    pub(crate) payload: Map<String, Value>,
    /// The claims as they stand in the token.
    pub(crate) encoded_payload: Box<str>,
    /// `iss`, or empty.
    pub(crate) issuer: Box<str>,
    /// `sub`, or empty.
    pub(crate) subject: Box<str>,
    /// `aud`
    pub(crate) audiences: Vec<String>,
    /// `exp`, in seconds since the epoch; 0 if there is none.
    pub(crate) expires: u64,
    /// `nbf`, in seconds since the epoch; 0 if there is none.
    not_before: u64,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<Box<str>>,
    /// It asks for an extension of RFC 7515 (`crit`), of which we have none.
    pub(super) is_critical: bool,
    /// Header and payload as they were signed.
    pub(super) signed: Box<str>,
    pub(super) signature: Vec<u8>,
}

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        // As in Envoy empty parts do not count.
        let mut parts = text.split('.').filter(|part| !part.is_empty());
        let (Some(header), Some(encoded_payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Status::BadFormat);
        };
        let signed = format!("{header}.{encoded_payload}").into();
        let decoded = BASE64.decode(header).map_err(|_| Status::HeaderBadBase64)?;
        let header: Map<_, _> =
            serde_json::from_slice(&decoded).map_err(|_| Status::HeaderBadJson)?;
        let name = header.get("alg").and_then(Value::as_str).ok_or(Status::HeaderBadAlg)?;
        let algorithm = Algorithm::named(name).ok_or(Status::HeaderNotImplementedAlg)?;
        let key_id = optional_text(&header, "kid", Status::HeaderBadKid)?;

        let decoded = BASE64.decode(encoded_payload).map_err(|_| Status::PayloadBadBase64)?;
        let payload: Map<_, _> =
            serde_json::from_slice(&decoded).map_err(|_| Status::PayloadBadJson)?;
        let issuer = optional_text(&payload, "iss", Status::IssNotString)?.unwrap_or_default();
        let subject = optional_text(&payload, "sub", Status::SubNotString)?.unwrap_or_default();
        seconds(&payload, "iat", Status::IatNotInteger, Status::IatOutOfRange)?;
        let not_before = seconds(&payload, "nbf", Status::NbfNotInteger, Status::NbfOutOfRange)?;
        let expires = seconds(&payload, "exp", Status::ExpNotInteger, Status::ExpOutOfRange)?;
        optional_text(&payload, "jti", Status::JtiNotString)?;
        let audiences = audiences(&payload)?;
        let signature = BASE64.decode(signature).map_err(|_| Status::SignatureBadBase64)?;
        Ok(Self {
            is_critical: header.contains_key("crit"),
            header,
            payload,
            encoded_payload: encoded_payload.into(),
            issuer,
            subject,
            audiences,
            expires,
            not_before,
            algorithm,
            key_id,
            signed,
            signature,
        })
    }

    /// Whether it is valid at this time, in seconds since the epoch, on clocks that may differ by `skew`.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn check_time(&self, now: u64, skew: u64) -> Result<(), Status> {
        if now.saturating_add(skew) < self.not_before {
            return Err(Status::NotYetValid);
        }
        if self.expires != 0 && now > self.expires.saturating_add(skew) {
            return Err(Status::Expired);
        }
        Ok(())
    }
}

fn optional_text(
    object: &Map<String, Value>,
    key: &str,
    wrong: Status,
) -> Result<Option<Box<str>>, Status> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(wrong),
    }
}

/// Seconds since the epoch; 0 if there are none.
fn seconds(
    object: &Map<String, Value>,
    key: &str,
    wrong: Status,
    out_of_range: Status,
) -> Result<u64, Status> {
    let Some(value) = object.get(key) else { return Ok(0) };
    let Value::Number(number) = value else { return Err(wrong) };
    if let Some(whole) = number.as_u64() {
        return Ok(whole);
    }
    let number = number.as_f64().ok_or(wrong)?;
    #[allow(clippy::cast_precision_loss)] // the bound itself is a power of two
    let most = u64::MAX as f64;
    if !(0.0..most).contains(&number) {
        return Err(out_of_range);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked above
    Ok(number as u64)
}

fn audiences(payload: &Map<String, Value>) -> Result<Vec<String>, Status> {
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience.clone()]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|audience| audience.as_str().map(str::to_owned).ok_or(Status::AudNotString))
            .collect(),
        Some(_) => Err(Status::AudNotString),
    }
}
