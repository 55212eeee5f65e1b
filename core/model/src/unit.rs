//! Units of RTP, with their wrapping made explicit.

use std::fmt;

/// RTP sequence number (RFC 3550 section 5.1): 16 bits that wrap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SequenceNumber(pub u16);

impl SequenceNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// How far `self` is ahead of `other`, in packets, by the shorter way round.
    pub fn distance(self, other: Self) -> i16 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// Whether `self` comes after `other` by the shorter way round.
    pub fn is_newer_than(self, other: Self) -> bool {
        self.distance(other) > 0
    }
}

/// RTP timestamp (RFC 3550 section 5.1): 32 bits in units of the codec's clock, that wrap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RtpTimestamp(pub u32);

impl RtpTimestamp {
    /// How far `self` is ahead of `other`, in clock ticks, by the shorter way round.
    pub fn distance(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// This timestamp moved by `ticks`.
    #[must_use]
    pub fn wrapping_add(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }
}

/// Synchronisation source (RFC 3550 section 3): one stream on one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ssrc(pub u32);

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// RTP payload type (RFC 3550 section 5.1): 7 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PayloadType(pub u8);

impl fmt::Display for PayloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// NTP time (RFC 3550 section 4): seconds since 1900 in 32.32 fixed point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The middle 32 bits, as receiver reports quote a sender report (RFC 3550 section 6.4.1).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// Bits per second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bitrate(pub u64);

impl fmt::Display for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bit/s", self.0)
    }
}

macro_rules! label {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            len: u8,
            bytes: [u8; 16],
        }

        impl $name {
            /// The label, if it is one to sixteen bytes of ASCII.
            pub fn new(text: &str) -> Option<Self> {
                Self::from_bytes(text.as_bytes())
            }

            /// As [`Self::new`], from the bytes of a header extension.
            pub fn from_bytes(text: &[u8]) -> Option<Self> {
                if text.is_empty() || text.len() > 16 || !text.is_ascii() {
                    return None;
                }
                let mut bytes = [0; 16];
                bytes[..text.len()].copy_from_slice(text);
                Some(Self { len: text.len() as u8, bytes })
            }

            /// The label's text.
            pub fn as_str(&self) -> &str {
                // Both constructors admit ASCII only.
                std::str::from_utf8(self.as_bytes()).unwrap_or("")
            }

            /// The label's bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.bytes[..usize::from(self.len)]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}

label! {
    /// Media section id (RFC 8843 section 9.1), short enough for a header extension.
    Mid,
    /// RTP stream id of a simulcast layer (RFC 8852).
    Rid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_compare_across_the_wrap() {
        assert!(SequenceNumber(2).is_newer_than(SequenceNumber(65_530)));
        assert!(!SequenceNumber(65_530).is_newer_than(SequenceNumber(2)));
        assert_eq!(SequenceNumber(2).distance(SequenceNumber(65_530)), 8);
    }

    #[test]
    fn labels_hold_up_to_sixteen_bytes() {
        assert_eq!(Mid::new("0123456789abcdef").unwrap().as_str(), "0123456789abcdef");
        assert_eq!(Mid::new("0123456789abcdefg"), None);
        assert_eq!(Rid::new(""), None);
        assert_eq!(Rid::new("é"), None);
    }
}
