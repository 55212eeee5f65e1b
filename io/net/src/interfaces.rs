//! The addresses of this machine.

use crate::wire::Name;
use std::{io, net::IpAddr, ptr};

/// Addresses of all interfaces that are up, in the kernel's order, each once. Loopback is
/// among them; link-local addresses, which mean nothing without an interface, are not.
///
/// # Errors
/// As `getifaddrs(3)`.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first = ptr::null_mut();
    // SAFETY: `first` is a valid place for the pointer to the list.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut entry = first;
    // SAFETY: an entry is null at the end or points to an `ifaddrs` of the list, which lives
    // until `freeifaddrs` below.
    while let Some(interface) = unsafe { entry.as_ref() } {
        if interface.ifa_flags & libc::IFF_UP as u32 != 0 {
            addresses.extend(address(interface.ifa_addr).filter(|ip| !is_link_local(*ip)));
        }
        entry = interface.ifa_next;
    }
    // SAFETY: `first` came from `getifaddrs`, is freed once, and nothing points into it any more:
    // the addresses are copies.
    unsafe { libc::freeifaddrs(first) };
    let mut seen = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    Ok(seen)
}

fn address(from: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: `getifaddrs` gives null or a `sockaddr`, which lives as long as its list.
    let family = i32::from(unsafe { from.as_ref() }?.sa_family);
    let len = match family {
        libc::AF_INET => 16,
        libc::AF_INET6 => 28,
        _ => return None,
    };
    let mut name = Name { len: len as u32, ..Name::default() };
    // SAFETY: a `sockaddr` of this family is `len` bytes long, and `Name` has room for 28.
    unsafe { ptr::copy_nonoverlapping(from.cast(), name.bytes.as_mut_ptr(), len) };
    name.decode().map(|address| address.ip())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn loopback_is_an_address_of_this_machine() {
        let addresses = local_addresses().unwrap();
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST.into()), "{addresses:?}");
        assert!(addresses.iter().all(|ip| !is_link_local(*ip) && !ip.is_unspecified()));
        for (at, address) in addresses.iter().enumerate() {
            assert!(!addresses[..at].contains(address));
        }
    }
}
