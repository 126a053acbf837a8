//! Certificates and keys: where they may come from, and what is said when they are not what they should be.

use std::sync::LazyLock;

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::harness::{IDENTITY, accepted, refused, refused_at};
use crate::config::secret::SecretValue;

const CERTIFICATE: &str = "static_resources.secrets[0].tls_certificate";
const ROOTS: &str = "static_resources.secrets[1].validation_context";

static OTHER_KEY: LazyLock<String> =
    LazyLock::new(|| KeyPair::generate().expect("a key").serialize_pem());

fn chain() -> String {
    format!("{CERTIFICATE}.certificate_chain")
}

fn key() -> String {
    format!("{CERTIFICATE}.private_key")
}

fn text(text: &str) -> Value {
    json!({"inline_string": text})
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_refused_without_a_word_of_it() {
    refused(&key(), text(&OTHER_KEY), "does not belong to the first certificate");
}

#[test]
fn what_is_no_certificate_or_key_is_refused_saying_what_it_is() {
    let (certificate, private_key) = &*IDENTITY;
    let cut = &certificate[..certificate.len() / 2];
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, value, reason) in [
        (chain(), text(""), "no certificate in PEM form"),
        (chain(), text(private_key), "no certificate in PEM form"),
        (chain(), text(cut), "cut off"),
        (chain(), text(garbage), "certificate 1 is not X.509"),
        (chain(), text(&format!("{certificate}{garbage}")), "certificate 2 is not X.509"),
        (key(), text(certificate), "no private key in PEM form"),
        (
            key(),
            text(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            ),
            "encrypted",
        ),
        (
            key(),
            text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "not a usable key",
        ),
        (
            key(),
            text("-----BEGIN PRIVATE KEY-----\n??\n-----END PRIVATE KEY-----\n"),
            "not valid base64",
        ),
        (format!("{ROOTS}.trusted_ca"), text("x"), "no certificate in PEM form"),
        (format!("{ROOTS}.crl"), text(certificate), "no revocation list in PEM form"),
        (
            format!("{ROOTS}.verify_certificate_hash[0]"),
            json!("a".repeat(64) + ":"),
            "not a SHA-256",
        ),
        (format!("{ROOTS}.verify_certificate_spki[0]"), json!("A".repeat(44)), "not a SHA-256"),
    ] {
        if path.ends_with("[0]") {
            let list = path.trim_end_matches("[0]");
            refused_at(&[(list, json!([value]))], &path, reason);
        } else {
            refused(&path, value, reason);
        }
    }
}

#[test]
fn a_file_or_variable_that_is_missing_is_named() {
    refused_at(
        &[(&chain(), json!({"filename": "/nowhere/tls.crt"}))],
        &format!("{}.filename", chain()),
        "cannot read /nowhere/tls.crt: No such file",
    );
    refused_at(
        &[(&key(), json!({"environment_variable": "OUTRIGGER_TEST_NOT_SET"}))],
        &format!("{}.environment_variable", key()),
        "no variable OUTRIGGER_TEST_NOT_SET",
    );
    refused(&key(), json!({}), "one of filename");
}

#[test]
fn a_certificate_may_come_from_a_file_or_as_bytes() {
    use base64::Engine;
    let (certificate, private_key) = &*IDENTITY;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tls.crt");
    std::fs::write(&file, certificate).expect("written");
    let bytes = base64::engine::general_purpose::STANDARD.encode(private_key);
    let bootstrap = accepted(&[
        (&chain(), json!({"filename": file})),
        (&key(), json!({"inline_bytes": bytes})),
    ]);
    assert!(
        matches!(&bootstrap.secrets[0].value, SecretValue::Certificate(key) if key.cert.len() == 1)
    );
}

#[test]
fn hashes_are_read_in_both_of_their_forms() {
    let plain = "0123456789abcdef".repeat(4);
    let pairs: Vec<&str> = (0..32).map(|index| &plain[index * 2..index * 2 + 2]).collect();
    let bootstrap = accepted(&[(
        &format!("{ROOTS}.verify_certificate_hash"),
        json!([plain, pairs.join(":").to_uppercase()]),
    )]);
    let SecretValue::Validation(context) = &bootstrap.secrets[1].value else {
        panic!("validation")
    };
    assert_eq!(context.certificate_hashes[0], context.certificate_hashes[1]);
    assert_eq!(context.certificate_hashes[0][..3], [0x01, 0x23, 0x45]);
}

#[test]
fn names_are_not_matched_in_certificates_that_no_root_vouches_for() {
    let context = "UPSTREAM.common_tls_context.validation_context";
    refused_at(
        &[
            ("UPSTREAM.common_tls_context.validation_context_sds_secret_config", Value::Null),
            (
                context,
                json!({"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a"}}]}),
            ),
        ],
        &format!("{context}.trusted_ca"),
        "prove nothing",
    );
}
