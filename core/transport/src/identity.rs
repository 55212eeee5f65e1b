//! The certificate that a process shows in every DTLS handshake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use dimpl::crypto::aws_lc_rs::default_provider as aws_lc_rs_provider;
use dimpl::crypto::{
    Buf, CryptoProvider, HashAlgorithm, KeyProvider, SignatureAlgorithm, SigningKey,
};
use dimpl::{CryptoError, CryptoOperation, DtlsCertificate};
use parlor_model::Fingerprint;

use crate::{MAX_DATAGRAM_BYTES, TransportError};

/// How long a lost handshake flight is waited for before it is sent again; doubled each time.
const FLIGHT_RTO: Duration = Duration::from_millis(200);

/// How often a flight is sent again.
const FLIGHT_RETRIES: usize = 8;

/// How long a handshake may take in all.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Our key, read and checked once: that costs as much as to sign with it, and `dimpl` would do it
/// for each handshake.
#[derive(Clone, Debug)]
struct ReadKey(Arc<EcdsaKeyPair>);

impl ReadKey {
    /// The settings that `dimpl` begins with, but for this key. They ask for a reference that
    /// never ends, so each identity leaves a pointer behind; a process makes one.
    fn provider(self) -> CryptoProvider {
        CryptoProvider { key_provider: Box::leak(Box::new(self)), ..aws_lc_rs_provider() }
    }
}

impl KeyProvider for ReadKey {
    fn load_private_key(&self, _: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(self.clone()))
    }
}

impl SigningKey for ReadKey {
    fn sign(&mut self, data: &[u8], hash: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        let key_hash = self.hash_algorithm();
        if hash != key_hash {
            return Err(CryptoError::SigningKeyHashMismatch { key_hash, requested: hash });
        }
        let signature = self.0.sign(&SystemRandom::new(), data);
        let signature =
            signature.map_err(|_| CryptoError::OperationFailed(CryptoOperation::Sign))?;
        out.clear();
        out.extend_from_slice(signature.as_ref());
        Ok(())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}

/// One certificate, its key and the DTLS settings: made once in a process, since checking the
/// settings costs more than a handshake. A clone shares them.
#[derive(Clone)]
pub struct DtlsIdentity(Arc<Identity>);

struct Identity {
    config: Arc<dimpl::Config>,
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
}

impl DtlsIdentity {
    /// A fresh P-256 key with a self-signed certificate. Draws from the system's generator: call
    /// it where a process starts, and use [`DtlsIdentity::from_der`] where a run must repeat.
    ///
    /// # Errors
    /// [`TransportError::Certificate`] when the cryptographic library fails.
    pub fn generate() -> Result<Self, TransportError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| TransportError::Certificate)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref())
            .map_err(|_| TransportError::Certificate)?;
        let body = certificate_body(pair.public_key().as_ref());
        let signature = pair.sign(&random, &body).map_err(|_| TransportError::Certificate)?;
        let certificate = der(
            SEQUENCE,
            &[&body, &der(SEQUENCE, &[ECDSA_WITH_SHA256]), &bit_string(signature.as_ref())],
        );
        Self::from_der(certificate, key.as_ref().to_vec(), None)
    }

    /// An existing certificate with its private key (PKCS #8), both in DER. With `rng_seed`, and
    /// only fit for a simulation, the randoms and the retransmission jitter of the handshakes
    /// come from it.
    ///
    /// # Errors
    /// [`TransportError::Certificate`] when the key is unusable.
    pub fn from_der(
        certificate: Vec<u8>,
        private_key: Vec<u8>,
        rng_seed: Option<u64>,
    ) -> Result<Self, TransportError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &private_key)
            .map_err(|_| TransportError::Certificate)?;
        let mut config = dimpl::Config::builder()
            .mtu(MAX_DATAGRAM_BYTES)
            .use_server_cookie(false) // ICE has validated the address
            .require_client_certificate(true)
            .flight_start_rto(FLIGHT_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .with_crypto_provider(ReadKey(Arc::new(key)).provider());
        if let Some(seed) = rng_seed {
            config = config.dangerously_set_rng_seed(seed);
        }
        let config = config.build().map_err(|_| TransportError::Certificate)?;
        let digest = digest::digest(&digest::SHA256, &certificate).as_ref().to_vec();
        Ok(Self(Arc::new(Identity {
            config: Arc::new(config),
            certificate: DtlsCertificate { certificate, private_key },
            fingerprint: Fingerprint { algorithm: "sha-256".into(), digest },
        })))
    }

    /// The SHA-256 digest that a description announces.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.0.certificate.certificate
    }

    /// The private key, PKCS #8 in DER.
    pub fn private_key_der(&self) -> &[u8] {
        &self.0.certificate.private_key
    }

    pub(crate) fn config(&self) -> Arc<dimpl::Config> {
        self.0.config.clone()
    }

    pub(crate) fn certificate(&self) -> DtlsCertificate {
        self.0.certificate.clone()
    }
}

impl fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DtlsIdentity").field(&self.0.fingerprint).finish()
    }
}

/// Whether `certificate` has one of the announced digests (RFC 8122 section 5). Digests of
/// unknown functions match nothing.
pub(crate) fn matches_fingerprint(certificate: &[u8], announced: &[Fingerprint]) -> bool {
    announced.iter().any(|fingerprint| {
        let algorithm = match fingerprint.algorithm.as_str() {
            "sha-256" => &digest::SHA256,
            "sha-384" => &digest::SHA384,
            "sha-512" => &digest::SHA512,
            _ => return false,
        };
        digest::digest(algorithm, certificate).as_ref() == fingerprint.digest
    })
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const EXPLICIT_0: u8 = 0xa0;
const ECDSA_WITH_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const PRIME256V1: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const COMMON_NAME: &[u8] = &[6, 3, 0x55, 4, 3];

/// The part of a certificate that is signed (RFC 5280 section 4.1). Its dates are fixed: peers
/// compare fingerprints and no dates (RFC 8827 section 6.5). Its serial number comes from the
/// key, since Firefox wants serial numbers to differ.
fn certificate_body(public_key: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, public_key);
    let mut serial = digest.as_ref()[..16].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40; // positive and without a leading zero
    let name = der(
        SEQUENCE,
        &[&der(SET, &[&der(SEQUENCE, &[COMMON_NAME, &der(UTF8_STRING, &[b"parlor"])])])],
    );
    let validity =
        der(SEQUENCE, &[&der(UTC_TIME, &[b"250101000000Z"]), &der(UTC_TIME, &[b"491231235959Z"])]);
    let key_algorithm = der(SEQUENCE, &[EC_PUBLIC_KEY, PRIME256V1]);
    der(
        SEQUENCE,
        &[
            &der(EXPLICIT_0, &[&der(INTEGER, &[&[2]])]),
            &der(INTEGER, &[&serial]),
            &der(SEQUENCE, &[ECDSA_WITH_SHA256]),
            &name,
            &validity,
            &name,
            &der(SEQUENCE, &[&key_algorithm, &bit_string(public_key)]),
        ],
    )
}

fn bit_string(content: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[0], content])
}

/// One DER value of at most 65535 bytes.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut value = vec![tag];
    match len {
        0..=0x7f => value.push(len as u8),
        0x80..=0xff => value.extend([0x81, len as u8]),
        _ => value.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    for part in parts {
        value.extend_from_slice(part);
    }
    value
}
