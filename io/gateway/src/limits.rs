//! Bounds of what one address, or one API key, may take of this server.

use parlor_signal::connect::NameLimits;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Addresses that are remembered before those that took nothing lately are forgotten.
pub const ADDRESSES_MAX: usize = 65_536;

/// Bounds; 0 is none. Loopback addresses have none: a proxy on this machine is many clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatewayLimits {
    /// Most TCP connections of one address.
    pub connections_per_address: usize,
    /// Most of them that have not brought a request yet.
    pub half_open_per_address: usize,
    /// Most WebSockets with tokens of one API key.
    pub sockets_per_key: usize,
    /// Most joins of one address in a second, on average over two.
    pub joins_per_second: u32,
    /// Most API calls with tokens of one API key in a second, on average over two.
    pub api_calls_per_second: u32,
    /// Longest body of a request, bytes.
    pub body_bytes: usize,
    /// Longest message of a WebSocket, bytes, compressed and decompressed.
    pub message_bytes: usize,
    /// The same of the sockets of agent workers.
    pub agent_message_bytes: usize,
    /// Longest names.
    pub names: NameLimits,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections_per_address: 10_000,
            half_open_per_address: 1_000,
            sockets_per_key: 0,
            joins_per_second: 500,
            api_calls_per_second: 5_000,
            body_bytes: crate::http::MAX_BODY_BYTES,
            message_bytes: crate::websocket::MAX_MESSAGE_BYTES,
            agent_message_bytes: crate::websocket::MAX_MESSAGE_BYTES,
            names: NameLimits::default(),
        }
    }
}

/// A token bucket that holds two seconds' worth.
#[derive(Default)]
struct Bucket(Option<(f64, Instant)>);

impl Bucket {
    fn level(&self, per_second: u32, now: Instant) -> f64 {
        let full = 2.0 * f64::from(per_second);
        self.0.map_or(full, |(level, then)| {
            let since = now.saturating_duration_since(then).as_secs_f64();
            (level + since * f64::from(per_second)).min(full)
        })
    }

    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let level = self.level(per_second, now);
        let enough = per_second == 0 || level >= 1.0;
        self.0 = Some((if enough { level - 1.0 } else { level }, now));
        enough
    }
}

#[derive(Default)]
struct OfAddress {
    connections: usize,
    half_open: usize,
    joins: Bucket,
}

#[derive(Default)]
struct OfKey {
    sockets: usize,
    calls: Bucket,
}

#[derive(Default)]
struct Use {
    limits: GatewayLimits,
    addresses: HashMap<IpAddr, OfAddress>,
    keys: HashMap<String, OfKey>,
    refused: u64,
}

/// Counts what is taken. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Use>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Use> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, limits: GatewayLimits) {
        self.lock().limits = limits;
    }

    pub(crate) fn limits(&self) -> GatewayLimits {
        self.lock().limits
    }

    /// Connections, joins and calls that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// A connection, half-open until [`Connection::has_asked`].
    pub(crate) fn connection(&self, address: IpAddr) -> Option<Connection> {
        let mut ledger = self.lock();
        let Use { limits, addresses, refused, .. } = &mut *ledger;
        if addresses.len() >= ADDRESSES_MAX {
            let now = Instant::now();
            let full = 2.0 * f64::from(limits.joins_per_second);
            addresses.retain(|_, of| {
                of.connections > 0 || of.joins.level(limits.joins_per_second, now) < full
            });
        }
        let of = addresses.entry(address).or_default();
        let over = |count, limit| limit > 0 && count >= limit;
        if !address.is_loopback()
            && (over(of.connections, limits.connections_per_address)
                || over(of.half_open, limits.half_open_per_address))
        {
            *refused += 1;
            return None;
        }
        of.connections += 1;
        of.half_open += 1;
        let half_open = true.into();
        Some(Connection { ledger: self.clone(), address, half_open })
    }

    /// Whether this address may join once more now.
    pub(crate) fn join(&self, address: IpAddr) -> bool {
        let mut ledger = self.lock();
        let per_second = ledger.limits.joins_per_second;
        let of = ledger.addresses.entry(address).or_default();
        let may = address.is_loopback() || of.joins.take(per_second, Instant::now());
        ledger.refused += u64::from(!may);
        may
    }

    /// Whether this key may call once more now. Keys are those of verified tokens.
    pub(crate) fn call(&self, key: &str) -> bool {
        let mut ledger = self.lock();
        let per_second = ledger.limits.api_calls_per_second;
        let of = ledger.keys.entry(key.to_owned()).or_default();
        let may = of.calls.take(per_second, Instant::now());
        ledger.refused += u64::from(!may);
        may
    }

    /// A WebSocket with a token of this key.
    pub(crate) fn socket(&self, key: &str) -> Option<KeySocket> {
        let mut ledger = self.lock();
        let limit = ledger.limits.sockets_per_key;
        let of = ledger.keys.entry(key.to_owned()).or_default();
        if limit > 0 && of.sockets >= limit {
            ledger.refused += 1;
            return None;
        }
        of.sockets += 1;
        Some(KeySocket { ledger: self.clone(), key: key.to_owned() })
    }
}

/// Counts a connection as long as it lives.
pub(crate) struct Connection {
    ledger: Ledger,
    address: IpAddr,
    half_open: std::sync::atomic::AtomicBool,
}

impl Connection {
    /// Its first request has come.
    pub(crate) fn has_asked(&self) {
        if self.half_open.swap(false, std::sync::atomic::Ordering::Relaxed)
            && let Some(of) = self.ledger.lock().addresses.get_mut(&self.address)
        {
            of.half_open = of.half_open.saturating_sub(1);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.has_asked();
        if let Some(of) = self.ledger.lock().addresses.get_mut(&self.address) {
            of.connections = of.connections.saturating_sub(1);
        }
    }
}

/// Counts a WebSocket of a key as long as it lives.
pub(crate) struct KeySocket {
    ledger: Ledger,
    key: String,
}

impl Drop for KeySocket {
    fn drop(&mut self) {
        if let Some(of) = self.ledger.lock().keys.get_mut(&self.key) {
            of.sockets = of.sockets.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        ledger.set(GatewayLimits {
            connections_per_address: 3,
            half_open_per_address: 2,
            sockets_per_key: 1,
            joins_per_second: 2,
            api_calls_per_second: 1,
            ..Default::default()
        });
        ledger
    }

    #[test]
    fn an_address_has_so_many_connections_and_fewer_that_say_nothing() {
        let ledger = ledger();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = ledger.connection(address).unwrap();
        let second = ledger.connection(address).unwrap();
        assert!(ledger.connection(address).is_none(), "two have not asked");
        first.has_asked();
        first.has_asked();
        let third = ledger.connection(address).unwrap();
        second.has_asked();
        third.has_asked();
        assert!(ledger.connection(address).is_none(), "three are open");
        assert!(ledger.connection("192.0.2.2".parse().unwrap()).is_some());
        drop(third);
        assert!(ledger.connection(address).is_some());
        let local: Vec<_> = (0..9).map(|_| ledger.connection([127, 0, 0, 1].into())).collect();
        assert!(local.iter().all(Option::is_some));
        assert_eq!(ledger.refused(), 2);
    }

    #[test]
    fn joins_calls_and_sockets_are_bounded() {
        let ledger = ledger();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert!((0..4).all(|_| ledger.join(address)) && !ledger.join(address));
        assert!(ledger.call("k") && ledger.call("k") && !ledger.call("k") && ledger.call("l"));
        let socket = ledger.socket("k");
        assert!(socket.is_some() && ledger.socket("k").is_none() && ledger.socket("l").is_some());
        drop(socket);
        assert!(ledger.socket("k").is_some());
    }

    #[test]
    fn a_bucket_fills_again() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        assert!((0..20).all(|_| bucket.take(10, now)) && !bucket.take(10, now));
        let later = now + Duration::from_millis(150);
        assert!(bucket.take(10, later) && !bucket.take(10, later));
        assert!((0..1000).all(|_| bucket.take(0, later)), "0 is no bound");
    }

    #[test]
    fn forgotten_addresses_make_room() {
        let ledger = Ledger::default();
        for n in 0..ADDRESSES_MAX as u32 + 10 {
            drop(ledger.connection(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()));
        }
        assert!(ledger.lock().addresses.len() <= ADDRESSES_MAX);
    }
}
