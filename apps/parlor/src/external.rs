//! Which addresses the outside sees: STUN (RFC 8489), from the ports that media will use.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long names of servers may take.
const RESOLVE_TIME: Duration = Duration::from_secs(3);
/// How long their answers may.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// After which a question is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long what was sent to the outside may take to come back.
const VALIDATE_TIME: Duration = Duration::from_secs(1);
/// Servers that are asked at once.
const SERVERS_MAX: usize = 8;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// What the outside sees of an address of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct External {
    /// The address of this machine.
    pub local: Ipv4Addr,
    /// The one that STUN servers see.
    pub external: Ipv4Addr,
    /// Whether what is sent there comes here.
    pub is_valid: bool,
}

/// Asks for each address of this machine, all at once.
pub fn discover(
    locals: &[Ipv4Addr],
    port: u16,
    servers: &[String],
    validate: bool,
) -> Vec<Result<External, String>> {
    let servers = &resolve(servers);
    thread::scope(|scope| {
        let asking: Vec<_> = locals
            .iter()
            .map(|local| scope.spawn(move || ask(*local, port, servers, validate)))
            .collect();
        let answers = locals.iter().zip(asking).map(|(local, asked)| match asked.join() {
            Ok(Ok(external)) => Ok(external),
            Ok(Err(error)) => Err(format!("{local}: {error}")),
            Err(_) => Err(format!("{local}: the question has panicked")),
        });
        answers.collect()
    })
}

/// The IPv4 addresses of the servers whose names are found in time, in their order.
fn resolve(servers: &[String]) -> Vec<SocketAddr> {
    let (found, finding) = mpsc::channel();
    for (index, server) in servers.iter().take(SERVERS_MAX).cloned().enumerate() {
        let found = found.clone();
        // A resolver that hangs is left alone.
        thread::spawn(move || {
            let addresses = server.to_socket_addrs().into_iter().flatten();
            let _ = found.send((index, addresses.into_iter().find(SocketAddr::is_ipv4)));
        });
    }
    drop(found);
    let end = Instant::now() + RESOLVE_TIME;
    let mut addresses = Vec::new();
    while let Ok((index, address)) =
        finding.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        addresses.extend(address.map(|address| (index, address)));
    }
    addresses.sort();
    addresses.into_iter().map(|(_, address)| address).collect()
}

fn ask(
    local: Ipv4Addr,
    port: u16,
    servers: &[SocketAddr],
    validate: bool,
) -> Result<External, String> {
    if servers.is_empty() {
        return Err("no STUN server has a known address".to_owned());
    }
    let failed = |error: io::Error| error.to_string();
    let socket = UdpSocket::bind((local, port)).map_err(failed)?;
    let external = ask_servers(&socket, servers).map_err(failed)?;
    let is_valid =
        !validate || external == local || comes_back(&socket, external).map_err(failed)?;
    Ok(External { local, external, is_valid })
}

/// The first answer of any of the servers.
fn ask_servers(socket: &UdpSocket, servers: &[SocketAddr]) -> io::Result<Ipv4Addr> {
    let transaction = random::<12>()?;
    let mut request = [0; 20];
    request[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    request[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    request[8..].copy_from_slice(&transaction);
    let end = Instant::now() + ANSWER_TIME;
    let mut unsent = None;
    while Instant::now() < end {
        let sent = servers.iter().filter(|server| match socket.send_to(&request, server) {
            Ok(_) => true,
            Err(error) => {
                unsent = Some(error);
                false
            }
        });
        if sent.count() == 0 {
            return Err(unsent.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
        }
        let answer = receive(socket, ASK_AGAIN, |datagram, from| {
            servers.contains(&from).then(|| mapped_address(datagram, &transaction)).flatten()
        })?;
        if let Some(address) = answer {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no STUN server has answered"))
}

/// Whether a datagram to the outside address comes to this socket.
fn comes_back(socket: &UdpSocket, external: Ipv4Addr) -> io::Result<bool> {
    let word = random::<32>()?;
    let there = SocketAddr::new(external.into(), socket.local_addr()?.port());
    if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(&word, there).is_err() {
        return Ok(false);
    }
    let back = receive(socket, VALIDATE_TIME, |datagram, _| (datagram == &word[..]).then_some(()))?;
    Ok(back.is_some())
}

/// The first datagram that is `wanted`; `None` if it does not come in time.
fn receive<T>(
    socket: &UdpSocket,
    time: Duration,
    wanted: impl Fn(&[u8], SocketAddr) -> Option<T>,
) -> io::Result<Option<T>> {
    let end = Instant::now() + time;
    let mut buffer = [0; 1500];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                if let Some(found) = buffer.get(..length).and_then(|bytes| wanted(bytes, from)) {
                    return Ok(Some(found));
                }
            }
            // Also a server's ICMP refusal: others may answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::ErrorKind::Other)?;
    Ok(bytes)
}

/// The XOR-MAPPED-ADDRESS (RFC 8489 section 14.2) of a success response to this transaction.
fn mapped_address(datagram: &[u8], transaction: &[u8; 12]) -> Option<Ipv4Addr> {
    let word =
        |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let is_ours = word(datagram, 0)? == BINDING_SUCCESS
        && datagram.get(4..8)? == MAGIC_COOKIE.to_be_bytes()
        && datagram.get(8..20)? == transaction;
    if !is_ours {
        return None;
    }
    let mut attributes = datagram.get(20..20 + usize::from(word(datagram, 2)?))?;
    loop {
        let length = usize::from(word(attributes, 2)?);
        let value = attributes.get(4..4 + length)?;
        if word(attributes, 0)? == XOR_MAPPED_ADDRESS && value.get(1) == Some(&1) {
            let address = u32::from_be_bytes(value.get(4..8)?.try_into().ok()?);
            return Some(Ipv4Addr::from(address ^ MAGIC_COOKIE));
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A STUN server on loopback that has seen everybody at this address.
    pub(crate) fn stun_server(seen: Ipv4Addr) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = answer(&buffer[..length], seen);
                // What is not an answer is passed over.
                socket.send_to(b"noise", from).unwrap();
                socket.send_to(&answer, from).unwrap();
            }
        });
        address
    }

    fn answer(request: &[u8], seen: Ipv4Addr) -> Vec<u8> {
        let mut answer = [&[1, 1, 0, 24][..], &request[4..20]].concat();
        answer.extend(*b"\x80\x22\x00\x05parlo\0\0\0");
        answer.extend([0, 0x20, 0, 8, 0, 1, 0, 0]);
        answer.extend((u32::from(seen) ^ MAGIC_COOKIE).to_be_bytes());
        answer
    }

    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[test]
    fn the_outside_is_asked_and_tried() {
        let seen = |external: Ipv4Addr, validate| {
            let servers = ["nowhere.invalid:1".into(), stun_server(external).to_string()];
            discover(&[LOCAL], 0, &servers, validate)
        };
        let valid = |external, is_valid| vec![Ok(External { local: LOCAL, external, is_valid })];
        assert_eq!(seen(LOCAL, true), valid(LOCAL, true));
        // Nothing comes back from 127.0.0.9 to a socket of 127.0.0.1.
        let other = Ipv4Addr::new(127, 0, 0, 9);
        assert_eq!(seen(other, true), valid(other, false));
        assert_eq!(seen(other, false), valid(other, true));
    }

    #[test]
    fn silence_and_absence_are_told() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = [silent.local_addr().unwrap().to_string()];
        let told = discover(&[LOCAL], 0, &servers, true);
        assert_eq!(told, [Err("127.0.0.1: no STUN server has answered".to_owned())]);
        let told = discover(&[LOCAL], 0, &[], true);
        assert!(told[0].as_ref().unwrap_err().contains("no STUN server"));
        let told = discover(&[Ipv4Addr::new(192, 0, 2, 1)], 0, &servers, true);
        assert!(told[0].is_err(), "not ours");
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
        let seen = Ipv4Addr::new(203, 0, 113, 9);
        let good = answer(&request, seen);
        assert_eq!(mapped_address(&good, &[7; 12]), Some(seen));
        assert_eq!(mapped_address(&good, &[8; 12]), None);
        for length in 0..good.len() {
            assert_eq!(mapped_address(&good[..length], &[7; 12]), None, "{length}");
        }
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = good.clone();
                changed[at] = byte;
                let _ = mapped_address(&changed, &[7; 12]);
            }
        }
    }
}
