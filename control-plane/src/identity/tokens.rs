//! Join tokens: `orj1.` and base64url of a JSON object that is all a sidecar needs to join. Of the secret in it only a
//! hash is kept.

use crate::api::view::{IssuedToken, TokenIssuer};
use crate::store::{Store, StoreError, records};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TABLE: &str = "tokens";
/// Services of which an instance ever joined.
const JOINED: &str = "joined";
const PREFIX: &str = "orj1.";
/// Larger than any token that was issued.
const MAX_LENGTH: usize = 4096;

/// Why a token does not let anybody in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is not a token.
    #[error("this is not a join token")]
    Malformed,
    /// It was not issued here, or its secret is wrong.
    #[error("the join token is not known here")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired; create another with `outrigger token create`")]
    Expired,
    /// It was used as often as it may be.
    #[error("the join token is used up; create another with `outrigger token create`")]
    UsedUp,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a token says.
#[derive(Serialize, Deserialize)]
struct Content {
    /// `HOST:PORT` of discovery.
    cp: String,
    /// Hash of the root's public key.
    pin: String,
    /// Trust domain.
    td: String,
    /// Service.
    svc: String,
    id: String,
    secret: String,
}

/// What is kept of a token.
#[derive(Serialize, Deserialize)]
struct Kept {
    service: String,
    /// SHA-256, base64url.
    secret_hash: String,
    /// Seconds since the epoch.
    expires: u64,
    uses: u32,
}

/// Issues join tokens and takes them back.
pub(crate) struct Tokens {
    store: Arc<dyn Store>,
    /// `HOST:PORT` at which sidecars reach discovery.
    discovery: String,
    pin: Box<dyn Fn() -> String + Send + Sync>,
    trust_domain: Box<dyn Fn() -> String + Send + Sync>,
}

impl Tokens {
    /// Tokens for sidecars that reach discovery at `discovery` (`HOST:PORT`) and pin the root by what `pin` says.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        discovery: String,
        pin: impl Fn() -> String + Send + Sync + 'static,
        trust_domain: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self { store, discovery, pin: Box::new(pin), trust_domain: Box::new(trust_domain) }
    }

    /// A new token. Blocks until it is durable.
    fn create(
        &self,
        service: &str,
        ttl: Duration,
        uses: u32,
        now: SystemTime,
    ) -> Result<IssuedToken, TokenError> {
        let (id, secret) = (random(16)?, random(32)?);
        let expires = now + ttl;
        let kept = Kept {
            service: service.to_owned(),
            secret_hash: hash(&secret),
            expires: seconds(expires),
            uses,
        };
        let kept = encode(&kept)?;
        records(&*self.store, |records| {
            // Tokens that let nobody in any more are not kept for ever.
            for (old, bytes) in records.list(TABLE)? {
                if decode::<Kept>(&bytes).is_none_or(|it| it.expires <= seconds(now)) {
                    records.remove(TABLE, &old)?;
                }
            }
            records.put(TABLE, &id, &kept)
        })?;
        let content = Content {
            cp: self.discovery.clone(),
            pin: (self.pin)(),
            td: (self.trust_domain)(),
            svc: service.to_owned(),
            id,
            secret,
        };
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(encode(&content)?));
        Ok(IssuedToken { token, expires })
    }

    /// Uses a token once. Answers with the service it is for. Blocks until the use is durable.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub(crate) fn redeem(&self, token: &str, now: SystemTime) -> Result<String, TokenError> {
        let content = parse(token).ok_or(TokenError::Malformed)?;
        records(&*self.store, |records| {
            let bytes = records.get(TABLE, &content.id)?.ok_or(TokenError::Unknown)?;
            let mut kept = decode::<Kept>(&bytes).ok_or(TokenError::Unknown)?;
            let given = hash(&content.secret);
            verify_slices_are_equal(given.as_bytes(), kept.secret_hash.as_bytes())
                .map_err(|_| TokenError::Unknown)?;
            if seconds(now) >= kept.expires {
                return Err(TokenError::Expired);
            }
            kept.uses = kept.uses.checked_sub(1).ok_or(TokenError::UsedUp)?;
            records.put(TABLE, &content.id, &encode(&kept)?)?;
            records.put(JOINED, &kept.service, &[])?;
            Ok(kept.service)
        })
    }

    /// Makes every token for this service useless. Answers with how many there were. Blocks until that is durable.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) fn revoke(&self, service: &str) -> Result<usize, StoreError> {
        records(&*self.store, |records| {
            let mut count = 0;
            for (id, bytes) in records.list(TABLE)? {
                if decode::<Kept>(&bytes).is_some_and(|it| it.service == service) {
                    records.remove(TABLE, &id)?;
                    count += 1;
                }
            }
            Ok(count)
        })
    }
}

/// The services of which an instance ever joined.
///
/// # Errors
/// If the store fails.
pub(crate) fn joined_services(store: &dyn Store) -> Result<BTreeSet<Arc<str>>, StoreError> {
    records(store, |records| {
        let joined = records.list(JOINED)?;
        Ok(joined.into_iter().map(|(service, _)| service.into()).collect())
    })
}

impl TokenIssuer for Tokens {
    fn issue(&self, service: &str, ttl: Duration, uses: u32) -> Result<IssuedToken, String> {
        self.create(service, ttl, uses, SystemTime::now()).map_err(|error| error.to_string())
    }
}

fn parse(token: &str) -> Option<Content> {
    let token = token.trim();
    if token.len() > MAX_LENGTH {
        return None;
    }
    decode(&URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?)
}

fn random(bytes: usize) -> Result<String, StoreError> {
    let mut secret = vec![0; bytes];
    rand::fill(&mut secret).map_err(|_| unusable("the system gives no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(secret))
}

fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| unusable(&error.to_string()))
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

fn unusable(reason: &str) -> StoreError {
    StoreError::Corrupt { place: TABLE.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EmbeddedStore;

    fn tokens(directory: &tempfile::TempDir) -> Tokens {
        let store = Arc::new(EmbeddedStore::open(directory.path()).unwrap());
        Tokens::new(store, "127.0.0.1:7701".to_owned(), || "pin".to_owned(), || "td".to_owned())
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_all_that_a_sidecar_needs() {
        let directory = tempfile::tempdir().unwrap();
        let issued = tokens(&directory).create("api", HOUR, 1, SystemTime::now()).unwrap();
        let content = parse(&issued.token).unwrap();
        assert_eq!((content.cp.as_str(), content.pin.as_str()), ("127.0.0.1:7701", "pin"));
        assert_eq!((content.td.as_str(), content.svc.as_str()), ("td", "api"));
        assert_eq!(URL_SAFE_NO_PAD.decode(content.secret).unwrap().len(), 32);
    }

    #[test]
    fn a_token_is_good_for_its_uses() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = tokens(&directory);
        let now = SystemTime::now();
        let token = tokens.create("api", HOUR, 2, now).unwrap().token;
        assert!(joined_services(&*tokens.store).unwrap().is_empty());
        assert_eq!(tokens.redeem(&token, now).unwrap(), "api");
        assert_eq!(tokens.redeem(&token, now).unwrap(), "api");
        assert_eq!(joined_services(&*tokens.store).unwrap(), ["api".into()].into());
        assert!(matches!(tokens.redeem(&token, now), Err(TokenError::UsedUp)));
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = tokens(&directory);
        let now = SystemTime::now();
        let token = tokens.create("api", HOUR, 1, now).unwrap().token;
        assert!(matches!(tokens.redeem(&token, now + HOUR), Err(TokenError::Expired)));
        assert_eq!(tokens.redeem(&token, now + HOUR / 2).unwrap(), "api");
    }

    #[test]
    fn a_token_with_another_secret_is_unknown_and_its_service_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = tokens(&directory);
        let now = SystemTime::now();
        let issued = tokens.create("api", HOUR, 1, now).unwrap().token;
        let forged = |change: fn(&mut Content)| {
            let mut content = parse(&issued).unwrap();
            change(&mut content);
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(encode(&content).unwrap()))
        };
        let other_secret = forged(|it| it.secret = "guess".to_owned());
        assert!(matches!(tokens.redeem(&other_secret, now), Err(TokenError::Unknown)));
        let other_id = forged(|it| it.id = "other".to_owned());
        assert!(matches!(tokens.redeem(&other_id, now), Err(TokenError::Unknown)));
        assert!(matches!(tokens.redeem("orj1.x", now), Err(TokenError::Malformed)));
        let other_service = forged(|it| it.svc = "ledger".to_owned());
        assert_eq!(tokens.redeem(&other_service, now).unwrap(), "api");
    }

    #[test]
    fn expired_tokens_are_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = tokens(&directory);
        let now = SystemTime::now();
        let old = tokens.create("api", HOUR, 1, now).unwrap().token;
        tokens.create("api", HOUR, 1, now + 2 * HOUR).unwrap();
        assert!(matches!(tokens.redeem(&old, now), Err(TokenError::Unknown)));
    }
}
