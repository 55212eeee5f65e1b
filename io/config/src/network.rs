//! `10.0.0.0/8`: a range of addresses.

use serde::{Deserialize, Deserializer, de};
use std::{fmt, net::IpAddr, str::FromStr};

/// An address with the number of bits that count. A bare address is itself alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpNetwork {
    address: IpAddr,
    bits: u8,
}

/// Neither `address/bits` nor an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a range of addresses like 10.0.0.0/8: {0:?}")]
pub struct IpNetworkError(String);

impl IpNetwork {
    /// Whether this address is in it. IPv4 and IPv6 have nothing in common.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let prefix = |value: u128, width: u32| {
            value.checked_shr(width.saturating_sub(self.bits.into())).unwrap_or(0)
        };
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                prefix(u32::from(own).into(), 32) == prefix(u32::from(ip).into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                prefix(u128::from(own), 128) == prefix(u128::from(ip), 128)
            }
            _ => false,
        }
    }
}

impl FromStr for IpNetwork {
    type Err = IpNetworkError;

    fn from_str(text: &str) -> Result<Self, IpNetworkError> {
        let fault = || IpNetworkError(text.to_owned());
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| fault())?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width { Err(fault()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> Deserialize<'de> for IpNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bits_say_is_in_it() {
        let contains = |network: &str, ip: &str| {
            network.parse::<IpNetwork>().unwrap().contains(ip.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1/32", "192.0.2.2"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("::/128", "::1"));
        assert!(contains("::/0", "2001:db8::1"));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/8/8", "eth0", "10/8"] {
            assert!(bad.parse::<IpNetwork>().is_err(), "{bad}");
        }
    }
}
