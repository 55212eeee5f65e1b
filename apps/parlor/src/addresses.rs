//! Which addresses clients are told to send media to.

use crate::Failure;
use parlor_config::{Config, ConfigError};
use parlor_workers::Announced;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where media is received, and what is announced.
#[derive(Debug, PartialEq, Eq)]
pub struct MediaAddresses {
    /// Wildcard addresses of the families in use.
    pub listen: Vec<IpAddr>,
    /// The candidates.
    pub announced: Vec<Announced>,
}

/// Reads this machine's interfaces and applies `rtc.node_ip` and `rtc.enable_loopback_candidate`.
pub fn discover(config: &Config) -> Result<MediaAddresses, Failure> {
    let interfaces = if_addrs::get_if_addrs()
        .map_err(|error| format!("cannot list the network interfaces: {error}"))?;
    let own: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).collect();
    let addresses = choose(config, &own)?;
    if addresses.announced.is_empty() {
        return Err("no network interface has an address that clients could reach: \
                    set rtc.node_ip (--node-ip), or use --dev to serve this machine only"
            .into());
    }
    Ok(addresses)
}

fn choose(config: &Config, own: &[IpAddr]) -> Result<MediaAddresses, ConfigError> {
    let chosen = config.node_ips()?;
    let mut announced: Vec<Announced> = match chosen.is_empty() {
        true => own.iter().filter(|ip| is_reachable(ip)).map(|ip| Announced::new(*ip)).collect(),
        false => chosen
            .into_iter()
            .map(
                |ip| if own.contains(&ip) { Announced::new(ip) } else { Announced::behind_nat(ip) },
            )
            .collect(),
    };
    if config.rtc.enable_loopback_candidate {
        let loopback = own.iter().filter(|ip| ip.is_loopback());
        announced.extend(loopback.map(|ip| Announced::new(*ip)));
    }
    let mut seen = Vec::new();
    announced.retain(|address| {
        let new = !seen.contains(&address.announced);
        seen.push(address.announced);
        new
    });
    let mut listen: Vec<IpAddr> = Vec::new();
    for (is_v4, wildcard) in
        [(true, Ipv4Addr::UNSPECIFIED.into()), (false, Ipv6Addr::UNSPECIFIED.into())]
    {
        if announced.iter().any(|address| address.announced.is_ipv4() == is_v4) {
            listen.push(wildcard);
        }
    }
    Ok(MediaAddresses { listen, announced })
}

/// Neither loopback nor link-local.
fn is_reachable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(yaml: &str, own: &[&str]) -> MediaAddresses {
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        choose(&Config::from_yaml(yaml).unwrap(), &own).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const OWN: [&str; 5] = ["127.0.0.1", "10.0.0.5", "::1", "fe80::1", "2001:db8::5"];

    #[test]
    fn the_interfaces_are_announced_but_for_those_that_lead_nowhere() {
        let addresses = announced("", &OWN);
        assert_eq!(
            addresses.announced,
            [Announced::new(ip("10.0.0.5")), Announced::new(ip("2001:db8::5"))]
        );
        assert_eq!(addresses.listen, [ip("0.0.0.0"), ip("::")]);
        assert_eq!(announced("", &["127.0.0.1", "10.0.0.5"]).listen, [ip("0.0.0.0")]);
    }

    #[test]
    fn loopback_comes_when_asked_for() {
        let addresses = announced("rtc: {enable_loopback_candidate: true}", &["127.0.0.1"]);
        assert_eq!(addresses.announced, [Announced::new(ip("127.0.0.1"))]);
    }

    #[test]
    fn a_node_ip_replaces_the_interfaces() {
        let addresses = announced("rtc: {node_ip: \"203.0.113.9,10.0.0.5\"}", &OWN);
        let expected = [Announced::behind_nat(ip("203.0.113.9")), Announced::new(ip("10.0.0.5"))];
        assert_eq!(addresses.announced, expected);
        assert_eq!(addresses.listen, [ip("0.0.0.0")]);
    }
}
