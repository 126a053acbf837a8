use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn token(header: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", base64(header.to_string()), base64(payload.to_string()));
    let signature = base64(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn set(keys: &Value) -> Jwks {
    Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn verify(keys: &Jwks, token: &str) -> Result<(), Status> {
    keys.verify(&Token::parse(token)?)
}

fn hmac_sign(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

struct Rsa(RsaKeyPair);

impl Rsa {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn jwk(&self, more: &Value) -> Value {
        let public = self.0.public_key();
        let n = public.modulus().big_endian_without_leading_zero().to_vec();
        let e = public.exponent().big_endian_without_leading_zero().to_vec();
        let mut jwk = json!({"kty": "RSA", "n": base64(n), "e": base64(e)});
        jwk.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        jwk
    }

    fn sign(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm, crv: &str) -> (EcdsaKeyPair, Value) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = pair.public_key().as_ref()[1..].to_vec();
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": crv, "x": base64(x), "y": base64(y)});
    (pair, jwk)
}

#[test]
fn every_algorithm_is_verified_and_a_changed_token_is_not() {
    let payload = json!({"sub": "me"});
    let mut tokens: Vec<(Jwks, String)> = Vec::new();
    let rsa = Rsa::new();
    let encodings: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    for (alg, encoding) in encodings {
        let signed = token(&json!({"alg": alg}), &payload, |message| rsa.sign(encoding, message));
        tokens.push((set(&json!([rsa.jwk(&json!({}))])), signed));
    }
    for (alg, algorithm, crv) in [
        ("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
        ("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
        ("ES512", &ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
    ] {
        let (pair, jwk) = ec(algorithm, crv);
        let sign =
            |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        tokens.push((set(&json!([jwk])), token(&json!({"alg": alg}), &payload, sign)));
    }
    for (alg, algorithm) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        let keys = set(&json!([{"kty": "oct", "k": base64(b"secret")}]));
        let sign = |message: &[u8]| hmac_sign(algorithm, b"secret", message);
        tokens.push((keys, token(&json!({"alg": alg}), &payload, sign)));
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key())});
    let sign = |message: &[u8]| pair.sign(message).as_ref().to_vec();
    tokens.push((set(&json!([jwk])), token(&json!({"alg": "EdDSA"}), &payload, sign)));

    for (keys, right) in tokens {
        assert_eq!(verify(&keys, &right), Ok(()), "{right}");
        let parts: Vec<&str> = right.split('.').collect();
        let forged = base64(json!({"sub": "you"}).to_string());
        let forged = format!("{}.{forged}.{}", parts[0], parts[2]);
        assert_eq!(verify(&keys, &forged), Err(Status::VerificationFails), "{forged}");
        let header = Token::parse(&right).unwrap().header;
        for short in ["", "AA", &"A".repeat(86)] {
            let other = format!("{}.{}.{short}", parts[0], parts[1]);
            let result = verify(&keys, &other);
            assert!(result.is_err(), "{header:?} {short:?}: {result:?}");
        }
    }
}

#[test]
fn none_is_no_algorithm() {
    for alg in ["none", "None", "NONE", "", "HS1", "RS257"] {
        let unsigned = format!(
            "{}.{}.AA",
            base64(json!({"alg": alg}).to_string()),
            base64(json!({"sub": "me"}).to_string())
        );
        assert_eq!(Token::parse(&unsigned).unwrap_err(), Status::HeaderNotImplementedAlg, "{alg}");
        // Without its signature it is not even a token.
        let two = unsigned.trim_end_matches("AA");
        assert_eq!(Token::parse(two).unwrap_err(), Status::BadFormat);
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let rsa = Rsa::new();
    let jwk = rsa.jwk(&json!({}));
    let keys = set(&json!([jwk]));
    // What an attacker who knows the public key would sign with.
    let secrets = [
        jwk["n"].as_str().unwrap().as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap(),
        rsa.0.public_key().as_ref().to_vec(),
    ];
    for secret in secrets {
        for (alg, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let sign = |message: &[u8]| hmac_sign(algorithm, &secret, message);
            let forged = token(&json!({"alg": alg}), &json!({}), sign);
            assert_eq!(verify(&keys, &forged), Err(Status::VerificationFails));
        }
    }
}

#[test]
fn a_key_is_used_with_its_own_algorithm_only() {
    let rsa = Rsa::new();
    let signed = |alg: &str| {
        token(&json!({"alg": alg}), &json!({}), |message| rsa.sign(&RSA_PKCS1_SHA256, message))
    };
    let only = set(&json!([rsa.jwk(&json!({"alg": "RS256"}))]));
    assert_eq!(verify(&only, &signed("RS256")), Ok(()));
    assert_eq!(verify(&only, &signed("RS512")), Err(Status::NoMatchingKey));
    let any = set(&json!([rsa.jwk(&json!({}))]));
    for alg in ["RS512", "PS256", "ES256", "EdDSA", "HS256"] {
        assert_eq!(verify(&any, &signed(alg)), Err(Status::VerificationFails), "{alg}");
    }
    // A curve has one algorithm.
    let (pair, jwk) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256");
    let sign = |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    for alg in ["ES384", "ES512", "RS256"] {
        let signed = token(&json!({"alg": alg}), &json!({}), sign);
        assert_eq!(verify(&set(&json!([jwk])), &signed), Err(Status::VerificationFails), "{alg}");
    }
}

#[test]
fn the_id_of_a_key_is_a_name_and_nothing_else() {
    let key = |kid: &str, secret: &[u8]| json!({"kty": "oct", "k": base64(secret), "kid": kid});
    let keys = set(&json!([key("a", b"secret-a"), key("b", b"secret-b")]));
    let signed = |header: Value, secret: &[u8]| {
        token(&header, &json!({}), |message| hmac_sign(hmac::HMAC_SHA256, secret, message))
    };
    let named = |kid: &str, secret: &[u8]| signed(json!({"alg": "HS256", "kid": kid}), secret);
    assert_eq!(verify(&keys, &named("b", b"secret-b")), Ok(()));
    assert_eq!(verify(&keys, &named("a", b"secret-b")), Err(Status::VerificationFails));
    for kid in ["../../dev/null", "/dev/null", "c' OR '1'='1", "http://attacker/", "a\0b"] {
        assert_eq!(verify(&keys, &named(kid, b"")), Err(Status::NoMatchingKey), "{kid}");
    }
    // Without one, every key is tried; keys that come with the token are never looked at.
    assert_eq!(verify(&keys, &signed(json!({"alg": "HS256"}), b"secret-b")), Ok(()));
    let own =
        json!({"alg": "HS256", "jwk": key("a", b"mine"), "jku": "http://attacker/", "x5c": []});
    assert_eq!(verify(&keys, &signed(own, b"mine")), Err(Status::VerificationFails));
    let number = signed(json!({"alg": "HS256", "kid": 1}), b"secret-a");
    assert_eq!(Token::parse(&number).unwrap_err(), Status::HeaderBadKid);
}

#[test]
fn an_extension_that_is_critical_is_refused() {
    let keys = set(&json!([{"kty": "oct", "k": base64(b"secret")}]));
    let sign = |message: &[u8]| hmac_sign(hmac::HMAC_SHA256, b"secret", message);
    let signed = token(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &json!({}), sign);
    assert_eq!(verify(&keys, &signed), Err(Status::VerificationFails));
}

#[test]
fn a_token_that_is_malformed_is_told_so() {
    let header = base64(json!({"alg": "HS256"}).to_string());
    let payload = base64("{}");
    let with_payload = |payload: Value| format!("{header}.{}.AA", base64(payload.to_string()));
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for (text, status) in [
        (String::new(), Status::BadFormat),
        ("a".to_owned(), Status::BadFormat),
        ("a.b".to_owned(), Status::BadFormat),
        ("a.b.c.d".to_owned(), Status::BadFormat),
        ("..".to_owned(), Status::BadFormat),
        (format!("!.{payload}.AA"), Status::HeaderBadBase64),
        (format!("{}.{payload}.AA", base64("[]")), Status::HeaderBadJson),
        (format!("{}.{payload}.AA", base64("{")), Status::HeaderBadJson),
        (format!("{}.{payload}.AA", base64("{}")), Status::HeaderBadAlg),
        (format!("{}.{payload}.AA", base64(r#"{"alg":256}"#)), Status::HeaderBadAlg),
        (format!("{header}.!.AA"), Status::PayloadBadBase64),
        (format!("{header}.{}.AA", base64("x")), Status::PayloadBadJson),
        (format!("{header}.{}.AA", base64(format!("{{\"a\":{deep}}}"))), Status::PayloadBadJson),
        (format!("{header}.{payload}.!"), Status::SignatureBadBase64),
        (with_payload(json!({"iss": 1})), Status::IssNotString),
        (with_payload(json!({"sub": []})), Status::SubNotString),
        (with_payload(json!({"iat": "1"})), Status::IatNotInteger),
        (with_payload(json!({"iat": -1})), Status::IatOutOfRange),
        (with_payload(json!({"nbf": true})), Status::NbfNotInteger),
        (with_payload(json!({"nbf": 1e30})), Status::NbfOutOfRange),
        (with_payload(json!({"exp": null})), Status::ExpNotInteger),
        (with_payload(json!({"exp": -5})), Status::ExpOutOfRange),
        (with_payload(json!({"jti": 1})), Status::JtiNotString),
        (with_payload(json!({"aud": 1})), Status::AudNotString),
        (with_payload(json!({"aud": ["a", 1]})), Status::AudNotString),
    ] {
        assert_eq!(Token::parse(&text).unwrap_err(), status, "{text}");
    }
}

#[test]
fn a_token_is_valid_for_its_time_and_a_little_more() {
    let at = |payload: Value| {
        let header = base64(json!({"alg": "HS256"}).to_string());
        Token::parse(&format!("{header}.{}.AA", base64(payload.to_string()))).unwrap()
    };
    let token = at(json!({"nbf": 1000, "exp": 2000.9}));
    for (now, skew, expected) in [
        (999, 0, Err(Status::NotYetValid)),
        (999, 1, Ok(())),
        (1000, 0, Ok(())),
        (2000, 0, Ok(())),
        (2001, 0, Err(Status::Expired)),
        (2060, 60, Ok(())),
        (2061, 60, Err(Status::Expired)),
    ] {
        assert_eq!(token.check_time(now, skew), expected, "{now} {skew}");
    }
    assert_eq!(at(json!({})).check_time(u64::MAX, u64::MAX), Ok(()));
    let far = json!({"exp": u64::MAX, "nbf": 0});
    assert_eq!(at(far).check_time(u64::MAX, u64::MAX), Ok(()));
}

#[test]
fn a_set_says_which_key_is_wrong_if_none_is_right() {
    let rsa = Rsa::new().jwk(&json!({}));
    let small = json!({"kty": "RSA", "n": base64([0xff; 128]), "e": "AQAB"});
    for (keys, reason) in [
        (json!([]), "has no key"),
        (json!([{}]), "keys[0]: [kty]"),
        (json!([{"kty": "X"}]), "[kty] \"X\" is not supported"),
        (json!([{"kty": "RSA", "e": "AQAB"}]), "[n] is required"),
        (json!([{"kty": "RSA", "n": "!", "e": "AQAB"}]), "[n] is not Base64url"),
        (json!([small]), "an RSA key of 1024 bits"),
        (json!([{"kty": "EC", "crv": "P-224", "x": "AA", "y": "AA"}]), "[crv] \"P-224\""),
        (json!([{"kty": "EC", "alg": "ES384", "crv": "P-256"}]), "does not fit [crv]"),
        (json!([{"kty": "EC", "x": base64([1; 33]), "y": "AA"}]), "too long"),
        (json!([{"kty": "OKP", "crv": "X25519", "x": "AA"}]), "[crv] must be Ed25519"),
        (json!([{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]), "not 32 bytes"),
        (json!([{"kty": "oct", "k": ""}]), "[k] is empty"),
        (json!([{"kty": "oct", "k": "AA", "alg": "RS256"}]), "does not fit [kty]"),
        (json!([{"kty": "oct", "k": "AA", "alg": "HS9"}]), "is not supported"),
    ] {
        let error = Jwks::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{error}, not {reason}");
    }
    assert!(Jwks::parse(b"[]").is_err() && Jwks::parse(b"{}").is_err());
    assert!(Jwks::parse(br#"{"keys":{}}"#).is_err());
    let many = json!({"keys": vec![json!({"kty": "oct", "k": "AA"}); 101]});
    assert!(Jwks::parse(many.to_string().as_bytes()).unwrap_err().contains("more than"));
    // One that is right is enough.
    assert!(Jwks::parse(json!({"keys": [{}, rsa]}).to_string().as_bytes()).is_ok());
}

#[test]
fn a_secret_is_not_shown() {
    let shown = format!("{:?}", set(&json!([{"kty": "oct", "k": base64(b"\x11\x22\x33")}])));
    assert!(!shown.contains("17, 34, 51"), "{shown}");
    let other = format!("{:?}", set(&json!([{"kty": "oct", "k": base64(b"\x11\x22\x34")}])));
    assert_ne!(shown, other);
}

#[test]
fn signatures_of_a_certificate_library_are_not_taken_for_fixed_ones() {
    // ASN.1, as TLS has them: RFC 7518 section 3.4 wants both numbers side by side.
    let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let point = pair.public_key().as_ref()[1..].to_vec();
    let (x, y) = point.split_at(32);
    let keys = set(&json!([{"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)}]));
    let sign = |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    let signed = token(&json!({"alg": "ES256"}), &json!({}), sign);
    assert_eq!(verify(&keys, &signed), Err(Status::VerificationFails));
}
