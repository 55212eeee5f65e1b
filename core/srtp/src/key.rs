//! Session keys: derivation (RFC 3711 section 4.3) and the ciphers themselves.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{constant_time, hmac, iv::FixedLength};
use parlor_model::SrtpProfile;

use crate::SrtpError;

/// Length of the tag of AES-GCM (RFC 7714 section 13.1).
pub(crate) const GCM_TAG_BYTES: usize = 16;

/// Length of the tag of HMAC-SHA1-80 (RFC 3711 section 4.2).
pub(crate) const HMAC_TAG_BYTES: usize = 10;

const SALT_BYTES: usize = 14;
const HMAC_KEY_BYTES: usize = 20;

/// Key derivation labels (RFC 3711 section 4.3.1): encryption, authentication, salt.
const RTP_LABELS: [u8; 3] = [0, 1, 2];
const RTCP_LABELS: [u8; 3] = [3, 4, 5];

/// The session keys of one direction.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SessionKeys {
    pub rtp: SessionKey,
    pub rtcp: SessionKey,
}

impl SessionKeys {
    pub fn derive(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(SrtpError::KeyLength);
        }
        let master = MasterKey::new(key, salt)?;
        Ok(Self {
            rtp: SessionKey::derive(profile, &master, RTP_LABELS)?,
            rtcp: SessionKey::derive(profile, &master, RTCP_LABELS)?,
        })
    }
}

/// The session key of RTP or of RTCP in one direction.
#[derive(Debug)]
pub(crate) enum SessionKey {
    Gcm(GcmKey),
    Cm(Box<CmKey>),
}

impl SessionKey {
    fn derive(
        profile: SrtpProfile,
        master: &MasterKey,
        [encryption, authentication, salting]: [u8; 3],
    ) -> Result<Self, SrtpError> {
        let mut key = [0; 32];
        let key = &mut key[..profile.key_len()];
        master.derive(encryption, key)?;
        let mut salt = [0; SALT_BYTES];
        master.derive(salting, &mut salt[..profile.salt_len()])?;
        let gcm = |algorithm| -> Result<Self, SrtpError> {
            let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::KeyLength)?;
            let salt = *salt.first_chunk().ok_or(SrtpError::KeyLength)?;
            Ok(SessionKey::Gcm(GcmKey { cipher: LessSafeKey::new(key), salt: number(salt) }))
        };
        match profile {
            SrtpProfile::AeadAes128Gcm => gcm(&aead::AES_128_GCM),
            SrtpProfile::AeadAes256Gcm => gcm(&aead::AES_256_GCM),
            SrtpProfile::AesCm128HmacSha1_80 => {
                let mut hmac_key = [0; HMAC_KEY_BYTES];
                master.derive(authentication, &mut hmac_key)?;
                CmKey::new(key, salt, &hmac_key).map(|key| SessionKey::Cm(Box::new(key)))
            }
        }
    }
}

/// AES-GCM as SRTP uses it (RFC 7714 sections 8 and 9).
#[derive(Debug)]
pub(crate) struct GcmKey {
    cipher: LessSafeKey,
    /// As a number of 96 bits.
    salt: u128,
}

fn number(salt: [u8; 12]) -> u128 {
    salt.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

impl GcmKey {
    #[cfg(test)]
    pub fn new(key: &[u8], salt: [u8; 12]) -> Self {
        let algorithm = if key.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
        let cipher = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        Self { cipher, salt: number(salt) }
    }

    pub fn seal(
        &self,
        ssrc: u32,
        index: u64,
        associated: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; GCM_TAG_BYTES], SrtpError> {
        let tag = self
            .cipher
            .seal_in_place_separate_tag(self.nonce(ssrc, index), Aad::from(associated), in_out)
            .map_err(|_| SrtpError::Malformed)?;
        tag.as_ref().try_into().map_err(|_| SrtpError::Malformed)
    }

    /// As [`Self::seal`] of a payload in two parts: `first` is sealed in place, `rest` into `out`,
    /// which takes the tag too. Cheapest where one of them is empty: the cipher is slow at a seam.
    #[inline(always)]
    pub fn seal_parts(
        &self,
        ssrc: u32,
        index: u64,
        associated: &[u8],
        (first, rest): (&mut [u8], &[u8]),
        out: &mut [u8],
    ) -> Result<(), SrtpError> {
        let (nonce, associated) = (self.nonce(ssrc, index), Aad::from(associated));
        let sealed = if first.is_empty() {
            let (sealed, tag) = out.split_at_mut_checked(rest.len()).ok_or(SrtpError::NoRoom)?;
            self.cipher.seal_out_of_place_scatter(nonce, associated, rest, sealed, &[], tag)
        } else {
            self.cipher.seal_in_place_scatter(nonce, associated, first, rest, out)
        };
        sealed.map_err(|_| SrtpError::Malformed)
    }

    /// `in_out` ends with the tag. Its content is lost when the packet is not authentic.
    pub fn open(
        &self,
        ssrc: u32,
        index: u64,
        associated: &[u8],
        in_out: &mut [u8],
    ) -> Result<(), SrtpError> {
        self.cipher
            .open_in_place(self.nonce(ssrc, index), Aad::from(associated), in_out)
            .map(|_| ())
            .map_err(|_| SrtpError::Unauthentic)
    }

    /// Two zeros, the SSRC, 48 bits of index, under the salt (RFC 7714 section 8.1).
    #[inline(always)]
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let number = self.salt ^ (u128::from(ssrc) << 48 | u128::from(index & (u64::MAX >> 16)));
        let [_, _, _, _, nonce @ ..] = number.to_be_bytes();
        Nonce::assume_unique_for_key(nonce)
    }
}

/// AES in counter mode and HMAC-SHA1-80 (RFC 3711 sections 4.1.1 and 4.2.1).
#[derive(Debug)]
pub(crate) struct CmKey {
    cipher: EncryptingKey,
    salt: [u8; SALT_BYTES],
    hmac: hmac::Key,
}

impl CmKey {
    pub fn new(key: &[u8], salt: [u8; SALT_BYTES], hmac_key: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self {
            cipher: counter_mode(key)?,
            salt,
            hmac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac_key),
        })
    }

    /// Encrypts or decrypts: the same operation.
    pub fn apply(&self, ssrc: u32, index: u64, in_out: &mut [u8]) -> Result<(), SrtpError> {
        let mut iv = [0; 16];
        iv[..SALT_BYTES].copy_from_slice(&self.salt);
        xor(&mut iv[4..8], &ssrc.to_be_bytes());
        xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
        apply_counter_mode(&self.cipher, iv, in_out)
    }

    /// The tag of `packet` followed by `suffix`.
    pub fn tag(&self, packet: &[u8], suffix: &[u8]) -> [u8; HMAC_TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.hmac);
        context.update(packet);
        context.update(suffix);
        let digest = context.sign();
        let mut tag = [0; HMAC_TAG_BYTES];
        tag.copy_from_slice(&digest.as_ref()[..HMAC_TAG_BYTES]);
        tag
    }

    pub fn verify(&self, packet: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
        constant_time::verify_slices_are_equal(&self.tag(packet, suffix), tag)
            .map_err(|_| SrtpError::Unauthentic)
    }
}

/// A master key that derives session keys with AES in counter mode (RFC 3711 section 4.3.3,
/// RFC 7714 section 11), at a key derivation rate of zero.
struct MasterKey {
    cipher: EncryptingKey,
    /// A salt of 96 bits is followed by zeros.
    salt: [u8; SALT_BYTES],
}

impl MasterKey {
    fn new(key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let mut padded = [0; SALT_BYTES];
        padded.get_mut(..salt.len()).ok_or(SrtpError::KeyLength)?.copy_from_slice(salt);
        Ok(Self { cipher: counter_mode(key)?, salt: padded })
    }

    fn derive(&self, label: u8, out: &mut [u8]) -> Result<(), SrtpError> {
        let mut iv = [0; 16];
        iv[..SALT_BYTES].copy_from_slice(&self.salt);
        iv[7] ^= label;
        out.fill(0);
        apply_counter_mode(&self.cipher, iv, out)
    }
}

fn counter_mode(key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = if key.len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
    UnboundCipherKey::new(algorithm, key)
        .and_then(EncryptingKey::ctr)
        .map_err(|_| SrtpError::KeyLength)
}

fn apply_counter_mode(
    key: &EncryptingKey,
    iv: [u8; 16],
    in_out: &mut [u8],
) -> Result<(), SrtpError> {
    key.less_safe_encrypt(in_out, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map(|_| ())
        .map_err(|_| SrtpError::Malformed)
}

fn xor(target: &mut [u8], mask: &[u8]) {
    for (byte, mask) in target.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
pub(crate) fn derive_for_test(key: &[u8], salt: &[u8], label: u8, out: &mut [u8]) {
    MasterKey::new(key, salt).unwrap().derive(label, out).unwrap();
}
