//! Which addresses may be posted to.
//!
//! Whoever may set a webhook could otherwise make the broker call what only the broker can reach: services of its machine, of
//! its network, the metadata of its cloud. So an address is refused unless it is one of the public internet, or lies in
//! `webhooks.allow_networks`. Every address that a name resolves to is judged, and the connection goes to the one that was
//! judged; the name is not looked up again.
//!
//! IPv6 addresses that carry an IPv4 address are judged by that, whatever is allowed: a network of translated addresses would
//! hold all of IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 networks that are not of the public internet.
const REFUSED_V4: [(Ipv4Net, &str); 16] = [
    (v4([0, 0, 0, 0], 8), "of this network"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "of a carrier's network"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    // Where the machines of a large cloud find the agent of their host.
    (v4([168, 63, 129, 16], 32), "of a cloud's host"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "reserved"),
    (v4([192, 0, 2, 0], 24), "for documentation"),
    (v4([192, 88, 99, 0], 24), "reserved"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "for benchmarks"),
    (v4([198, 51, 100, 0], 24), "for documentation"),
    (v4([203, 0, 113, 0], 24), "for documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
];

/// Where public IPv6 addresses lie, all of them.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);

/// What of it is not public.
const REFUSED_V6: [(Ipv6Net, &str); 3] = [
    (v6([0x2001, 0], 23), "reserved"),
    (v6([0x2001, 0xdb8], 32), "for documentation"),
    (v6([0x3fff, 0], 20), "for documentation"),
];

/// IPv6 addresses that end with an IPv4 address: mapped ones, and those of translators.
const ENDS_WITH_V4: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
];

/// IPv6 addresses that carry an IPv4 address behind their first 16 bits.
const BEGINS_WITH_V4: Ipv6Net = v6([0x2002, 0], 16);

const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6([first, second]: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), bits)
}

/// What kind of address it is, when it may not be posted to.
pub(super) fn refusal(address: IpAddr, allowed: &[IpNet]) -> Option<&'static str> {
    let judged = carried_v4(address).map_or(address, IpAddr::V4);
    if allowed.iter().any(|network| network.contains(&judged)) {
        return None;
    }
    match judged {
        IpAddr::V4(address) => {
            REFUSED_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, kind)| *kind)
        }
        IpAddr::V6(address) if address.is_loopback() => Some("loopback"),
        IpAddr::V6(address) if !PUBLIC_V6.contains(&address) => Some("not of the public internet"),
        IpAddr::V6(address) => {
            REFUSED_V6.iter().find(|(network, _)| network.contains(&address)).map(|(_, kind)| *kind)
        }
    }
}

fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [.., a, b, c, d] = address.octets();
    if ENDS_WITH_V4.iter().any(|network| network.contains(&address)) {
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    let [_, _, a, b, c, d, ..] = address.octets();
    BEGINS_WITH_V4.contains(&address).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], allowed: &[&str], is_refused: bool) {
        let allowed: Vec<IpNet> = allowed.iter().map(|network| network.parse().unwrap()).collect();
        for address in addresses {
            let refusal = refusal(address.parse().unwrap(), &allowed);
            assert_eq!(refusal.is_some(), is_refused, "{address}: {refusal:?}");
        }
    }

    #[test]
    fn what_is_not_of_the_public_internet_is_refused() {
        check(&["127.0.0.1", "127.255.0.9", "::1", "0.0.0.0", "::"], &[], true);
        check(
            &["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"],
            &[],
            true,
        );
        check(&["169.254.169.254", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1"], &[], true);
        check(&["168.63.129.16"], &[], true);
        check(&["224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1"], &[], true);
        check(
            &["::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::7f00:1", "2002:7f00:1::"],
            &[],
            true,
        );
        check(&["64:ff9b:1::1", "2001::1", "2001:db8::1", "100::1", "::127.0.0.1"], &[], true);
        check(&["172.15.0.1", "172.32.0.1", "100.128.0.1", "1.1.1.1", "198.17.0.1"], &[], false);
        check(&["2606:4700::1111", "2a00::1", "::ffff:1.1.1.1", "64:ff9b::101:101"], &[], false);
    }

    #[test]
    fn what_is_allowed_is_allowed_and_no_more() {
        let allowed = ["127.0.0.0/8", "10.1.0.0/16", "fd00::/8"];
        check(&["127.0.0.1", "10.1.255.1", "fd12::1", "::ffff:127.0.0.1"], &allowed, false);
        check(&["10.2.0.1", "192.168.0.1", "::1", "fe80::1"], &allowed, true);
        let translated = ["64:ff9b::/96", "::ffff:0:0/96", "2002::/16", "::/0"];
        check(&["64:ff9b::7f00:1", "::ffff:10.1.2.3", "2002:a9fe:a9fe::"], &translated, true);
        check(&["::1", "fe80::1"], &translated, false);
    }
}
