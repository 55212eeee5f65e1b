//! `7882`, or `7882-7889`.

use serde::{Deserialize, Deserializer, de};
use std::{fmt, ops::RangeInclusive, str::FromStr};

/// One or more UDP ports in a row. Port 0 stands for one that the system chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Not a port and not a range of ports.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a UDP port, nor a range like 7882-7889: {0:?}")]
pub struct PortRangeError(String);

impl PortRange {
    /// `count` ports from `first` on, as many as there are below 65536; at least one.
    pub fn starting_at(first: u16, count: usize) -> Self {
        let more = u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX);
        Self { first, last: first.saturating_add(more) }
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// How many ports.
    pub fn count(self) -> usize {
        RangeInclusive::new(self.first, self.last).count()
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let port = |text: &str| text.trim().parse().map_err(|_| ());
        let range = match text.split_once('-') {
            Some((first, last)) => {
                port(first).and_then(|first| port(last).map(|last| (first, last)))
            }
            None => port(text).map(|port| (port, port)),
        };
        match range {
            Ok((first, last)) if first <= last => Ok(Self { first, last }),
            _ => Err(PortRangeError(text.to_owned())),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => self.first.fmt(f),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UDP port, or a range like 7882-7889")
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<PortRange, E> {
                port.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        let range: PortRange = "7882-7885".parse().unwrap();
        assert_eq!(
            (range.first(), range.count(), range.to_string().as_str()),
            (7882, 4, "7882-7885")
        );
        assert_eq!("7882".parse(), Ok(PortRange::starting_at(7882, 1)));
        assert_eq!(PortRange::starting_at(65535, 8).count(), 1);
        for bad in ["", "-", "5-4", "70000", "1-2-3", "a"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
