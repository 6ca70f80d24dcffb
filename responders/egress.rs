//! Where requests may go: decided about the address, when the connection is made.
//!
//! A name is looked up once, and what the look-up gave is what is connected to, so that a name cannot mean
//! one address when it is checked and another when it is used. Without leave nothing goes to an address that
//! is not public: metadata services, private networks, this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Special-purpose IPv4 (IANA's registry, and multicast and above): address and length of the prefix.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Within 2000::/3, what is not public: Teredo and its neighbours, documentation, 6to4. Outside of it nothing
/// is public: that is where loopback, link-local, unique-local, mapped and translated (NAT64) addresses are.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What one responder may connect to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Egress {
    networks: Vec<(IpAddr, u32)>,
    hosts: Vec<(String, u16)>,
    /// The URL itself names this machine, and may.
    loopback: bool,
    port: u16,
}

impl Egress {
    /// Leave for networks (`10.0.0.0/8`) and for the private addresses of hosts (`hooks.corp:8443`), and the
    /// URL that is to be asked. Fails with what is wrong, without the URL.
    pub(crate) fn new(allowed: &[String], url: &Url, allow_loopback: bool) -> Result<Self, String> {
        let mut egress = Self { port: url.port_or_known_default().unwrap_or(0), ..Self::default() };
        for entry in allowed {
            match (network(entry), host(entry)) {
                (Some(network), _) => egress.networks.push(network),
                (None, Some(host)) => egress.hosts.push(host),
                (None, None) => {
                    return Err(format!("`{entry}` is neither HOST:PORT nor a network such as 10.0.0.0/8"));
                }
            }
        }
        let host = url.host_str().ok_or("has no host")?;
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let names_loopback = literal.map_or(host == "localhost", |ip| ip.is_loopback());
        egress.loopback = names_loopback && allow_loopback;
        match url.scheme() {
            "https" => {}
            "http" if egress.loopback => {}
            _ => {
                return Err(
                    "has to begin with https://; http:// is for this machine's loopback alone".to_owned()
                );
            }
        }
        match literal {
            Some(ip) if !egress.permits(host, ip) => {
                Err("is an address that is not public; `egress` gives leave for a network".to_owned())
            }
            _ => Ok(egress),
        }
    }

    fn permits(&self, host: &str, ip: IpAddr) -> bool {
        let named =
            || self.hosts.iter().any(|(name, port)| name.eq_ignore_ascii_case(host) && *port == self.port);
        (self.loopback && ip.is_loopback())
            || self.networks.iter().any(|(network, bits)| contains(*network, *bits, ip))
            // A name that somebody else may point anywhere gets no further than to private networks.
            || (!self.loopback && (is_public(ip) || (is_private(ip) && named())))
    }
}

impl Resolve for Egress {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> =
                found.filter(|address| egress.permits(name.as_str(), address.ip())).collect();
            if permitted.is_empty() {
                return Err(Refused.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// All addresses of a name are out of bounds.
#[derive(Debug, thiserror::Error)]
#[error("`egress` gives no leave for the target's address")]
pub(crate) struct Refused;

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits): (IpAddr, u32) = (ip.parse().ok()?, bits.parse().ok()?);
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

fn host(text: &str) -> Option<(String, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    let is_name = !name.is_empty() && !name.contains(['/', ':', '@', '*']);
    is_name.then_some((name.to_owned(), port.parse().ok()?))
}

fn contains(network: IpAddr, bits: u32, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            same_prefix(u128::from(network.to_bits()) << 96, u128::from(ip.to_bits()) << 96, bits)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => same_prefix(network.to_bits(), ip.to_bits(), bits),
        _ => false,
    }
}

fn same_prefix(a: u128, b: u128, bits: u32) -> bool {
    bits == 0 || (a ^ b) >> (128 - bits) == 0
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => !NOT_PUBLIC_V4.iter().any(|(network, bits)| contains((*network).into(), *bits, ip)),
        IpAddr::V6(v6) => {
            same_prefix(v6.to_bits(), 0x2000 << 112, 3)
                && !NOT_PUBLIC_V6.iter().any(|(network, bits)| contains((*network).into(), *bits, ip))
        }
    }
}

/// Networks that a firm has for itself: RFC 1918, carrier-grade NAT and unique-local.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || contains(Ipv4Addr::new(100, 64, 0, 0).into(), 10, ip),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(url: &str, allowed: &[&str]) -> Result<Egress, String> {
        let allowed: Vec<String> = allowed.iter().map(|entry| (*entry).to_owned()).collect();
        Egress::new(&allowed, &Url::parse(url).expect("a URL"), true)
    }

    /// Scenario: every way to write an address of this machine or of a private network.
    /// Guarantee: refused before anything is sent, unless config gives leave.
    #[test]
    fn f20_ssrf_encodings() {
        for host in [
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "127.1",
            "[::ffff:127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "100.64.0.1",
            "[fe80::1]",
            "[::]",
            "[::1]",
            "169.254.169.254",
            "10.1.2.3",
            "[fd00:ec2::254]",
            "0.0.0.0",
            "192.168.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::ffff:a00:1]",
        ] {
            let (https, http) = (format!("https://{host}/x"), format!("http://{host}/x"));
            let is_loopback = Url::parse(&https).is_ok_and(|url| {
                url.host_str()
                    .and_then(|h| h.trim_matches(['[', ']']).parse::<IpAddr>().ok())
                    .is_some_and(|ip| ip.is_loopback())
            });
            assert_eq!(egress(&https, &[]).is_ok(), is_loopback, "{host}");
            assert_eq!(egress(&http, &[]).is_ok(), is_loopback, "{host}");
            let strict = Egress::new(&[], &Url::parse(&https).expect("a URL"), false);
            assert!(strict.is_err(), "{host}: loopback is off");
        }
        assert!(egress("https://10.1.2.3/x", &["10.0.0.0/8"]).is_ok());
        assert!(
            egress("https://10.1.2.3/x", &["11.0.0.0/8", "10.1.2.3:443"]).is_ok_and(|e| e.hosts.len() == 1)
        );
        assert!(egress("http://93.184.215.14/x", &[]).is_err(), "https alone");
        assert!(egress("https://93.184.215.14/x", &[]).is_ok());
        assert!(egress("ftp://example.com/x", &[]).is_err());
        for entry in ["10.0.0.0/33", "example.com", "*:443", "a/b:1", ""] {
            assert!(egress("https://example.com/x", &[entry]).is_err(), "{entry}");
        }
    }

    /// Guarantee: what a name means is held against the policy, whoever answers for the name.
    #[test]
    fn f19_ssrf_dns_rebind() {
        let check = |egress: &Egress, ip: &str, permitted: bool| {
            assert_eq!(egress.permits("hooks.corp", ip.parse().expect("an address")), permitted, "{ip}");
        };
        let open = egress("https://hooks.corp/x", &[]).expect("a policy");
        for ip in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0"]
        {
            check(&open, ip, false);
        }
        check(&open, "93.184.215.14", true);
        check(&open, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", true);
        let private = egress("https://hooks.corp:8443/x", &["hooks.corp:8443"]).expect("a policy");
        for (ip, permitted) in
            [("10.0.0.1", true), ("fd00::1", true), ("127.0.0.1", false), ("169.254.169.254", false)]
        {
            check(&private, ip, permitted);
        }
        let local = egress("http://localhost:1/x", &[]).expect("a policy");
        check(&local, "127.0.0.1", true);
        check(&local, "93.184.215.14", false);
    }
}
