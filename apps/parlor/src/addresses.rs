//! Which addresses clients are told to send media to.

use crate::{
    Failure,
    external::{self, External},
};
use parlor_config::{Config, ConfigError};
use parlor_workers::Announced;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
};

/// Where media is received, and what is announced.
#[derive(Debug, PartialEq, Eq)]
pub struct MediaAddresses {
    /// Wildcard addresses of the families in use; where the configuration chooses among this
    /// machine's addresses, those that it chooses.
    pub listen: Vec<IpAddr>,
    /// The candidates.
    pub announced: Vec<Announced>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// An address of an interface of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Own {
    interface: String,
    ip: IpAddr,
}

/// Reads this machine's interfaces, and applies what `rtc` says of addresses. With
/// `rtc.use_external_ip` STUN servers are asked, which takes a few seconds at worst.
pub fn discover(config: &Config) -> Result<MediaAddresses, Failure> {
    let interfaces = if_addrs::get_if_addrs()
        .map_err(|error| format!("cannot list the network interfaces: {error}"))?;
    let own: Vec<Own> = interfaces
        .into_iter()
        .map(|interface| Own { ip: interface.ip(), interface: interface.name })
        .collect();
    let rtc = &config.rtc;
    let port = config.media_ports(processors()).first();
    let addresses = choose(config, &own, |locals| {
        external::discover(locals, port, &rtc.stun_servers(), !rtc.skip_external_ip_validation)
    })?;
    if addresses.announced.is_empty() {
        let known: Vec<String> =
            own.iter().map(|own| format!("{} {}", own.interface, own.ip)).collect();
        return Err(format!(
            "no network interface has an address that clients could reach: set rtc.node_ip \
             (--node-ip), change rtc.interfaces or rtc.ips, or use --dev to serve this machine \
             only. Addresses here: {}",
            known.join(", ")
        )
        .into());
    }
    Ok(addresses)
}

/// Processors that media threads may have.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn choose(
    config: &Config,
    own: &[Own],
    ask: impl FnOnce(&[Ipv4Addr]) -> Vec<Result<External, String>>,
) -> Result<MediaAddresses, ConfigError> {
    let rtc = &config.rtc;
    let is_used = |own: &&Own| {
        let is_near = own.ip.is_loopback() && rtc.enable_loopback_candidate;
        (is_reachable(own.ip) || is_near) && rtc.may_use(&own.interface, own.ip)
    };
    let usable: Vec<IpAddr> = own.iter().filter(is_used).map(|own| own.ip).collect();
    let node_ips = config.node_ips()?;
    let mut warnings = Vec::new();
    let from_outside = match rtc.use_external_ip {
        true => seen_from_outside(config, &usable, ask, &mut warnings),
        false => None,
    };
    let mut announced = match from_outside {
        Some(announced) => announced,
        None if node_ips.is_empty() => usable.iter().map(|ip| Announced::new(*ip)).collect(),
        None => {
            let is_own = |ip: &IpAddr| own.iter().any(|own| own.ip == *ip);
            let announce =
                |ip| if is_own(&ip) { Announced::new } else { Announced::behind_nat }(ip);
            let loopback = usable.iter().filter(|ip| ip.is_loopback()).copied();
            let loopback = loopback.map(Announced::new);
            node_ips.into_iter().map(announce).chain(loopback).collect()
        }
    };
    let mut seen = Vec::new();
    announced.retain(|address| {
        let new = !seen.contains(&address.announced);
        seen.push(address.announced);
        new
    });
    let is_filtered = !rtc.interfaces.is_empty() || !rtc.ips.is_empty();
    let listen = listen(&mut announced, is_filtered.then_some(&usable[..]));
    Ok(MediaAddresses { listen, announced, warnings })
}

/// `rtc.use_external_ip`: each address as the outside sees it, as LiveKit does. `None` if the
/// outside could not be asked.
fn seen_from_outside(
    config: &Config,
    usable: &[IpAddr],
    ask: impl FnOnce(&[Ipv4Addr]) -> Vec<Result<External, String>>,
    warnings: &mut Vec<String>,
) -> Option<Vec<Announced>> {
    let locals: Vec<Ipv4Addr> = usable.iter().filter_map(v4).collect();
    let mut seen: Vec<External> = Vec::new();
    for answer in ask(&locals) {
        match answer {
            Ok(external) => seen.push(external),
            Err(error) => warnings.push(format!("rtc.use_external_ip: {error}")),
        }
    }
    let v6 = usable.iter().filter(|ip| ip.is_ipv6()).map(|ip| Announced::new(*ip));
    let mut valid: Vec<External> = Vec::new();
    for external in seen.iter().filter(|external| external.is_valid) {
        // Of several addresses behind one, the first has it.
        if valid.iter().all(|before| before.external != external.external) {
            valid.push(*external);
        }
    }
    if valid.is_empty() {
        let Some(External { external, .. }) = seen.first() else {
            warnings.push("rtc.use_external_ip: the outside could not be asked".to_owned());
            return None;
        };
        warnings.push(format!(
            "rtc.use_external_ip: nothing that was sent to {external} came back here; clients are \
             told it all the same"
        ));
        return Some(
            std::iter::once(Announced::behind_nat((*external).into())).chain(v6).collect(),
        );
    }
    let rtc = &config.rtc;
    let mut announced = Vec::new();
    for local in locals {
        let own = Announced::new(local.into());
        match valid.iter().find(|external| external.local == local) {
            Some(external) => {
                let outside = external.external.into();
                announced.push(Announced { announced: outside, bound: Some(local.into()) });
                announced.extend(rtc.advertise_internal_ip.then_some(own));
            }
            None => announced.extend((!rtc.external_ip_only).then_some(own)),
        }
    }
    Some(announced.into_iter().chain(v6).collect())
}

/// What to listen on: all of each family that is announced, or, where the configuration has
/// chosen among this machine's addresses, only those.
fn listen(announced: &mut [Announced], chosen: Option<&[IpAddr]>) -> Vec<IpAddr> {
    let mut listen: Vec<IpAddr> = Vec::new();
    for wildcard in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        let is_of_family = |ip: &IpAddr| ip.is_ipv4() == wildcard.is_ipv4();
        let mut reachable = chosen.unwrap_or_default().iter().filter(|ip| is_of_family(ip));
        if let (Some(only), None) = (reachable.next(), reachable.next()) {
            // The one address that is chosen is the one that a NAT in front leads to.
            for address in announced.iter_mut().filter(|of| is_of_family(&of.announced)) {
                address.bound = address.bound.or(Some(*only));
            }
        }
        let of_family = || announced.iter().filter(|address| is_of_family(&address.announced));
        let bound: Option<Vec<IpAddr>> = of_family().map(|address| address.bound).collect();
        match (chosen, bound) {
            (Some(_), Some(bound)) => {
                for ip in bound {
                    if !listen.contains(&ip) {
                        listen.push(ip);
                    }
                }
            }
            _ => listen.extend(of_family().next().map(|_| wildcard)),
        }
    }
    listen
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

/// Neither loopback nor link-local.
fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(of: &[(&str, &str)]) -> Vec<Own> {
        let own =
            of.iter().map(|(interface, ip)| Own { interface: (*interface).into(), ip: at(ip) });
        own.collect()
    }

    fn announced(yaml: &str, of: &[(&str, &str)]) -> MediaAddresses {
        choose(&Config::from_yaml(yaml).unwrap(), &own(of), |_| panic!("nobody is asked")).unwrap()
    }

    /// What comes of these answers about the IPv4 addresses of [`OWN`].
    fn outside(yaml: &str, answers: &[(&str, Option<(&str, bool)>)]) -> MediaAddresses {
        let yaml = format!("rtc: {{use_external_ip: true, {yaml}}}");
        let v4 = |ip: &str| ip.parse::<Ipv4Addr>().unwrap();
        let ask = |locals: &[Ipv4Addr]| {
            let asked: Vec<Ipv4Addr> = answers.iter().map(|(local, _)| v4(local)).collect();
            assert_eq!(locals, asked);
            let answer = |(local, seen): &(&str, Option<(&str, bool)>)| match seen {
                None => Err(format!("{local}: nobody has answered")),
                Some((external, is_valid)) => {
                    Ok(External { local: v4(local), external: v4(external), is_valid: *is_valid })
                }
            };
            answers.iter().map(answer).collect()
        };
        choose(&Config::from_yaml(&yaml).unwrap(), &own(&OWN), ask).unwrap()
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn mapped(announced: &str, bound: &str) -> Announced {
        Announced { announced: at(announced), bound: Some(at(bound)) }
    }

    const OWN: [(&str, &str); 6] = [
        ("lo", "127.0.0.1"),
        ("eth0", "10.0.0.5"),
        ("docker0", "172.17.0.1"),
        ("lo", "::1"),
        ("eth0", "fe80::1"),
        ("eth0", "2001:db8::5"),
    ];

    #[test]
    fn the_interfaces_are_announced_but_for_those_that_lead_nowhere() {
        let addresses = announced("", &OWN);
        let expected = ["10.0.0.5", "172.17.0.1", "2001:db8::5"];
        assert_eq!(addresses.announced, expected.map(|ip| Announced::new(at(ip))));
        assert_eq!(addresses.listen, [at("0.0.0.0"), at("::")]);
        assert_eq!(announced("", &OWN[..2]).listen, [at("0.0.0.0")]);
    }

    #[test]
    fn loopback_comes_when_asked_for() {
        let addresses = announced("rtc: {enable_loopback_candidate: true}", &OWN[..1]);
        assert_eq!(addresses.announced, [Announced::new(at("127.0.0.1"))]);
    }

    #[test]
    fn a_node_ip_replaces_the_interfaces() {
        let addresses = announced("rtc: {node_ip: \"203.0.113.9,10.0.0.5\"}", &OWN);
        let expected = [Announced::behind_nat(at("203.0.113.9")), Announced::new(at("10.0.0.5"))];
        assert_eq!(addresses.announced, expected);
        assert_eq!(addresses.listen, [at("0.0.0.0")]);
    }

    #[test]
    fn interfaces_and_addresses_are_chosen_and_only_they_are_listened_on() {
        for yaml in [
            "rtc: {interfaces: {includes: [eth0]}}",
            "rtc: {interfaces: {excludes: [docker0]}}",
            "rtc: {ips: {excludes: [172.16.0.0/12]}}",
            "rtc: {interfaces: {includes: [eth0]}, ips: {includes: [10.0.0.0/8, '2001:db8::/32']}}",
        ] {
            let addresses = announced(yaml, &OWN);
            let expected = ["10.0.0.5", "2001:db8::5"].map(at);
            assert_eq!(addresses.announced, expected.map(Announced::new), "{yaml}");
            assert_eq!(addresses.listen, expected, "{yaml}");
        }
        let v4 = announced("rtc: {ips: {includes: [10.0.0.0/8]}}", &OWN);
        assert_eq!(v4.listen, [at("10.0.0.5")]);
        assert!(announced("rtc: {interfaces: {includes: [wlan0]}}", &OWN).announced.is_empty());
        // Several can be meant by a node_ip: the NAT chooses.
        let yaml = "rtc: {node_ip: 203.0.113.9, ips: {excludes: [192.0.2.0/24]}}";
        assert_eq!(announced(yaml, &OWN).listen, [at("0.0.0.0")]);
        let yaml = "rtc: {node_ip: 203.0.113.9, interfaces: {includes: [eth0]}}";
        let one = announced(yaml, &OWN);
        assert_eq!(one.announced, [mapped("203.0.113.9", "10.0.0.5")]);
        assert_eq!(one.listen, [at("10.0.0.5")]);
    }

    #[test]
    fn addresses_are_announced_as_the_outside_sees_them() {
        let seen = [
            ("10.0.0.5", Some(("203.0.113.9", true))),
            ("172.17.0.1", Some(("203.0.113.9", true))),
        ];
        let (outer, v6) = (mapped("203.0.113.9", "10.0.0.5"), Announced::new(at("2001:db8::5")));
        let (inner, other) = (Announced::new(at("10.0.0.5")), Announced::new(at("172.17.0.1")));
        assert_eq!(outside("", &seen).announced, [outer, other, v6]);
        assert_eq!(outside("external_ip_only: true", &seen).announced, [outer, v6]);
        let internal = outside("external_ip_only: true, advertise_internal_ip: true", &seen);
        assert_eq!(internal.announced, [outer, inner, v6]);
        let public = [("10.0.0.5", Some(("10.0.0.5", true))), ("172.17.0.1", None)];
        assert_eq!(outside("", &public).announced, [inner, other, v6]);
        // It comes before what is configured, which may have changed since.
        assert_eq!(outside("node_ip: 192.0.2.7", &seen).announced[0], outer);
    }

    #[test]
    fn an_outside_that_does_not_answer_is_done_without() {
        let none = [("10.0.0.5", None), ("172.17.0.1", None)];
        let addresses = outside("", &none);
        assert_eq!(addresses.announced.len(), 3);
        assert_eq!(addresses.warnings.len(), 3);
        let node_ip = outside("node_ip: 203.0.113.9", &none);
        assert_eq!(node_ip.announced, [Announced::behind_nat(at("203.0.113.9"))]);
        let unproven = [("10.0.0.5", Some(("203.0.113.9", false))), ("172.17.0.1", None)];
        let addresses = outside("", &unproven);
        assert_eq!(addresses.announced[0], Announced::behind_nat(at("203.0.113.9")));
        assert!(addresses.warnings.iter().any(|warning| warning.contains("203.0.113.9")));
    }
}
