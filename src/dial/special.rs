//! Addresses by what they are for: ranges that belong to one machine, to one network, to everybody, or to none of these.
//!
//! After the IANA registries of special-purpose addresses (RFC 6890 and what has been added since), and what clouds have
//! taken for their metadata besides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses, as in `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    first: IpAddr,
    bits: u8,
}

impl Net {
    /// `None` if the text is neither an address nor ADDRESS/BITS.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address = plain(address.trim_start_matches('[').trim_end_matches(']').parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { first: address, bits })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                first.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                first.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }

    /// All of it lies in `other`.
    pub fn is_within(&self, other: &Net) -> bool {
        self.bits >= other.bits && other.contains(self.first)
    }
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine's own.
    Loopback,
    /// Of a network that is nobody else's: RFC 1918, RFC 4193, and what providers put behind one address (RFC 6598).
    Private,
    /// Of the internet.
    Public,
    /// For another purpose than services that one calls: the range, and the purpose in words.
    Special(Net, &'static str),
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Net {
    Net { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
}

const fn v6(first: [u16; 4], bits: u8) -> Net {
    let [a, b, c, d] = first;
    Net { first: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), bits }
}

const METADATA: &str = "where clouds keep metadata and credentials of their machines";

/// The narrow ones first: the first that contains an address says what it is.
const SPECIAL: [(Net, &str); 27] = [
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(100, 100, 100, 200, 32), METADATA),
    (Net { first: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)), bits: 128 }, METADATA),
    (Net { first: IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)), bits: 128 }, METADATA),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds keep metadata and credentials of their machines"),
    (v4(0, 0, 0, 0, 8), "no address of any machine"),
    (v4(192, 0, 0, 0, 24), "for protocols"),
    (v4(192, 0, 2, 0, 24), "for examples"),
    (v4(198, 51, 100, 0, 24), "for examples"),
    (v4(203, 0, 113, 0, 24), "for examples"),
    (v4(192, 88, 99, 0, 24), "of relays that are no more"),
    (v4(198, 18, 0, 0, 15), "for benchmarks of networks"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    (v6([0xfe80, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0], 10), "site-local, which is no more"),
    (v6([0xff00, 0, 0, 0], 8), "multicast"),
    (v6([0x64, 0xff9b, 1, 0], 48), "IPv4 in another form"),
    (v6([0x2002, 0, 0, 0], 16), "IPv4 in another form"),
    (v6([0x2001, 0, 0, 0], 32), "IPv4 in another form"),
    (v6([0x2001, 0, 0, 0], 23), "for protocols"),
    (v6([0x2001, 0x0db8, 0, 0], 32), "for examples"),
    (v6([0x3fff, 0, 0, 0], 20), "for examples"),
    (v6([0x100, 0, 0, 0], 64), "thrown away"),
    (v6([0, 0, 0, 0], 8), "no address of any machine"),
    (v6([0x5f00, 0, 0, 0], 16), "for protocols"),
];

const LOOPBACK: [Net; 2] = [v4(127, 0, 0, 0, 8), Net { first: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 }];
const PRIVATE: [Net; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v6([0xfc00, 0, 0, 0], 7),
];

/// All of IPv6 that has been given to anybody.
const GLOBAL: Net = v6([0x2000, 0, 0, 0], 3);

/// Well-known prefix of RFC 6052: a network of IPv6 alone reaches IPv4 addresses by it.
const NAT64: Net = v6([0x64, 0xff9b, 0, 0], 96);

/// The address that is really reached: an IPv4 address that is written as IPv6 is what it is.
pub fn plain(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if NAT64.contains(IpAddr::V6(v6)) => IpAddr::V4(Ipv4Addr::from_bits(v6.to_bits() as u32)),
        canonical => canonical,
    }
}

/// What kind of address it is. `address` is [`plain`].
pub fn kind(address: IpAddr) -> Kind {
    let one_of = |nets: &[Net]| nets.iter().any(|net| net.contains(address));
    if one_of(&LOOPBACK) {
        return Kind::Loopback;
    }
    if let Some((net, purpose)) = SPECIAL.iter().find(|(net, _)| net.contains(address)) {
        return Kind::Special(*net, purpose);
    }
    if one_of(&PRIVATE) {
        return Kind::Private;
    }
    match address.is_ipv4() || GLOBAL.contains(address) {
        true => Kind::Public,
        false => Kind::Special(Net { first: address, bits: 128 }, "not given to anybody"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Kind {
        kind(plain(text.parse().unwrap()))
    }

    #[test]
    fn every_address_has_its_kind() {
        for loopback in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert_eq!(of(loopback), Kind::Loopback, "{loopback}");
        }
        for private in ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.9.9", "100.64.0.1", "fd12::1", "fc00::1"] {
            assert_eq!(of(private), Kind::Private, "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "169.253.0.1", "2606:4700::1", "64:ff9b::101:101"] {
            assert_eq!(of(public), Kind::Public, "{public}");
        }
        for special in [
            "169.254.169.254",
            "169.254.0.0",
            "169.254.255.255",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.192",
            "100.100.100.200",
            "168.63.129.16",
            "198.19.0.1",
            "::",
            "::2",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::ffff:0:0",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:1::",
            "2001:db8::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100::1",
            "4000::1",
            "8000::1",
            "fa00::1",
            "fe00::1",
        ] {
            assert!(matches!(of(special), Kind::Special(..)), "{special}: {:?}", of(special));
        }
    }

    #[test]
    fn a_range_is_what_it_says() {
        let net = |text: &str| Net::parse(text).unwrap();
        let ten = net("10.0.0.0/8");
        assert!(ten.contains("10.255.255.255".parse().unwrap()) && !ten.contains("11.0.0.0".parse().unwrap()));
        assert!(
            net("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()) && !net("0.0.0.0/0").contains("::1".parse().unwrap())
        );
        assert!(net("::/0").contains("fe80::1".parse().unwrap()));
        assert!(net("10.1.0.0/16").is_within(&ten) && !ten.is_within(&net("10.1.0.0/16")) && ten.is_within(&ten));
        assert_eq!(net("[fd00::1]"), net("fd00::1/128"));
        for bad in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/", "a/8", "10.0.0.0/8/8", "10.0.0.0/-1"] {
            assert_eq!(Net::parse(bad), None, "{bad}");
        }
    }
}
