//! Certificate requests: only the public key and the proof that its owner sent it count.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Larger than any request with a P-256 key and names.
const MAX_SIZE: usize = 16 << 10;

/// A public key whose owner proved that it has the private one.
#[derive(Debug)]
pub(crate) struct PublicKey(SubjectPublicKeyInfo);

/// Why a certificate request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsrError {
    /// It is not PKCS #10 in DER.
    #[error("csr_der is not a certificate request (PKCS #10 in DER)")]
    Malformed,
    /// The signature is not by the key in it.
    #[error("csr_der is not signed by the key that it holds")]
    NoProof,
    /// The key is of another kind.
    #[error("csr_der holds another key than ECDSA P-256")]
    WrongKey,
}

impl PublicKey {
    /// Takes the key out of a request. Whatever else it asks for, names above all, is not looked at.
    ///
    /// # Errors
    /// See [`CsrError`].
    pub(crate) fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_SIZE {
            return Err(CsrError::Malformed);
        }
        let (rest, csr) =
            X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        csr.verify_signature().map_err(|_| CsrError::NoProof)?;
        let spki = csr.certification_request_info.subject_pki.raw;
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| CsrError::WrongKey)?;
        if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(CsrError::WrongKey);
        }
        Ok(Self(key))
    }

    /// The key.
    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn csr(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec!["somebody.else".to_owned()]).unwrap();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_gives_its_key() {
        let key = KeyPair::generate().unwrap();
        let public = PublicKey::from_csr(&csr(&key)).unwrap();
        assert_eq!(public.key().der_bytes(), key.der_bytes());
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let key = KeyPair::generate().unwrap();
        let mut der = csr(&key);
        let place = der.windows(13).position(|it| it == b"somebody.else").unwrap();
        der[place] = b'S';
        assert_eq!(PublicKey::from_csr(&der).unwrap_err(), CsrError::NoProof);
        assert_eq!(PublicKey::from_csr(b"\x30\x03abc").unwrap_err(), CsrError::Malformed);
        let mut trailing = csr(&key);
        trailing.push(0);
        assert_eq!(PublicKey::from_csr(&trailing).unwrap_err(), CsrError::Malformed);
    }

    #[test]
    fn only_p256_keys_are_certified() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert_eq!(PublicKey::from_csr(&csr(&key)).unwrap_err(), CsrError::WrongKey);
    }
}
