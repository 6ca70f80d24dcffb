//! Under which names relight may be asked.
//!
//! A page of another site can have its own name point at 127.0.0.1 and then read what is here (DNS rebinding). The
//! browser sends that name as `Host`, so names that are not relight's are refused.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap};
use hyper::{Uri, Version};

/// The names of one listener.
pub(crate) struct Hosts {
    listen: SocketAddr,
    more: Vec<String>,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// None or several.
    Malformed,
    /// A name that is not relight's.
    Unknown(String),
}

impl Hosts {
    /// Loopback's names and the listener's address, and these.
    pub(crate) fn new(listen: SocketAddr, more: Vec<String>) -> Self {
        Self { listen, more }
    }

    pub(crate) fn check(&self, version: Version, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() || host.is_none() && version == Version::HTTP_11 {
            return Err(Refusal::Malformed);
        }
        let host = host.map(|host| host.to_str().map_err(|_| Refusal::Malformed)).transpose()?;
        // The form that a proxy is asked in has a name of its own, which counts.
        let named = uri.authority().map(hyper::http::uri::Authority::as_str);
        [host, named].into_iter().flatten().try_for_each(|name| {
            if self.is_known(name) { Ok(()) } else { Err(Refusal::Unknown(name.to_owned())) }
        })
    }

    fn is_known(&self, host: &str) -> bool {
        let name = without_port(host);
        let name = name.strip_suffix('.').unwrap_or(name);
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            return address.is_loopback() || address == self.listen.ip() || self.is_listed(bare);
        }
        name.eq_ignore_ascii_case("localhost") || self.is_listed(name)
    }

    fn is_listed(&self, name: &str) -> bool {
        self.more.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !is_cut(name) => name,
        _ => host,
    }
}

/// Whether a colon is one of an IPv6 address: its brackets are not closed before it.
fn is_cut(name: &str) -> bool {
    name.starts_with('[') && !name.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: loopback's names, the listener's address and what is configured are relight's, with and without a
    /// port, in any case; every other name is refused, however near it looks.
    #[test]
    fn only_own_names_are_answered() {
        let hosts = Hosts::new(([10, 0, 0, 7], 9777).into(), vec!["relight.example".to_owned()]);
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:9777", true),
            ("localhost.", true),
            ("127.0.0.1:1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("[::1]:9777", true),
            ("[::ffff:127.0.0.1]:9777", true),
            ("10.0.0.7:9777", true),
            ("relight.example", true),
            ("RELIGHT.example:443", true),
            ("10.0.0.8", false),
            ("[::2]:9777", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example:127", false),
            ("", false),
            (":9777", false),
            ("[::1", false),
        ] {
            assert_eq!(hosts.is_known(host), expected, "{host}");
        }
    }

    /// Guarantee: HTTP/1.1 has one `Host`; a name in the request's line counts as well.
    #[test]
    fn a_request_names_one_host() {
        let hosts = Hosts::new(([127, 0, 0, 1], 9777).into(), Vec::new());
        let check = |version, names: &[&str], uri: &str| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(HOST, name.parse().expect("a value"));
            }
            hosts.check(version, &headers, &uri.parse().expect("a URI"))
        };
        assert_eq!(check(Version::HTTP_11, &["localhost"], "/"), Ok(()));
        assert_eq!(check(Version::HTTP_10, &[], "/"), Ok(()));
        assert_eq!(check(Version::HTTP_11, &[], "/"), Err(Refusal::Malformed));
        assert_eq!(check(Version::HTTP_11, &["localhost", "localhost"], "/"), Err(Refusal::Malformed));
        let unknown = Err(Refusal::Unknown("evil".to_owned()));
        assert_eq!(check(Version::HTTP_11, &["evil"], "/"), unknown);
        assert_eq!(check(Version::HTTP_10, &["evil"], "/"), unknown);
        assert_eq!(check(Version::HTTP_11, &["localhost"], "http://evil/"), unknown);
    }
}
