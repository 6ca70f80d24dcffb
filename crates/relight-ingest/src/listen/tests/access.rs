//! Who is let in: bearer tokens, TLS, client certificates.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use relight_core::responder::{Secret, Secrets};
use relight_core::source::{SourceKind, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::super::Outcome;
use super::*;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

#[test]
fn only_who_knows_a_token_is_let_in() {
    let secrets = ["one", "two"].map(|name| (name.to_owned(), Secret::new(format!("token-{name}"))));
    let otlp =
        relight_core::source::Otlp { bearer: vec!["one".to_owned(), "two".to_owned()], ..otlp_source() };
    let world = World::new(SourceKind::Otlp(otlp), Engine::Takes, &Secrets::new(secrets));
    for (given, is_let_in) in [
        ("Bearer token-one", true),
        ("bearer token-two", true),
        ("Bearer token-on", false),
        ("Bearer token-one ", true),
        ("Bearer token-onee", false),
        ("Bearer ", false),
        ("Digest token-one", false),
        ("token-one", false),
        ("", false),
    ] {
        let answer = post(world.address("http"), "/v1/metrics", &[PROTOBUF, ("authorization", given)], b"");
        assert_eq!(answer.status, if is_let_in { 200 } else { 401 }, "{given}");
        assert_eq!(answer.header("www-authenticate"), if is_let_in { "" } else { "Bearer" });
        let answer = grpc(&world, &Call { token: given.trim_end(), ..Call::of("metrics", "") });
        assert_eq!(answer.header("grpc-status"), if is_let_in { "0" } else { "16" }, "{given}");
    }
    assert_eq!(world.stats.requests(Outcome::Unauthenticated), 12);
}

/// Certificates of one authority, as files.
struct Pki {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("signed");
        let pki = Self { folder: tempfile::tempdir().expect("a folder"), authority };
        std::fs::write(pki.path("ca"), pki.authority.pem()).expect("written");
        pki.issue("server");
        pki.issue("client");
        pki
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn issue(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        std::fs::write(self.path(name), certificate.pem()).expect("written");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    fn tls(&self, with_clients: bool) -> Tls {
        let client_ca_file = with_clients.then(|| self.path("ca"));
        Tls { cert_file: self.path("server"), key_file: self.path("server.key"), client_ca_file }
    }

    /// Posts over TLS; `None` if the other side does not want to talk.
    fn post(&self, to: SocketAddr, with_certificate: bool) -> Option<u16> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca")).expect("a certificate")).expect("valid");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = if with_certificate {
            let chain = vec![CertificateDer::from_pem_file(self.path("client")).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(self.path("client.key")).expect("a key");
            config.with_client_auth_cert(chain, key).expect("they fit")
        } else {
            config.with_no_client_auth()
        };
        let name = "localhost".try_into().expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = StreamOwned::new(connection, client::connect(to));
        stream.write_all(client::head("/v1/metrics", &[PROTOBUF], 0).as_bytes()).ok()?;
        let mut first = [0];
        std::io::Read::read_exact(&mut stream, &mut first).ok()?;
        Some(client::answer(std::io::Read::chain(&first[..], stream)).status)
    }
}

fn with_tls(tls: Tls) -> World {
    let otlp = relight_core::source::Otlp { tls: Some(tls), ..otlp_source() };
    World::new(SourceKind::Otlp(otlp), Engine::Takes, &Secrets::default())
}

/// Guarantee: without a certificate of the authority that was named nobody is let in.
#[test]
fn only_who_has_a_certificate_is_let_in() {
    let pki = Pki::new();
    let open = with_tls(pki.tls(false));
    assert_eq!(pki.post(open.address("http"), false), Some(200));
    let closed = with_tls(pki.tls(true));
    assert_eq!(pki.post(closed.address("http"), true), Some(200));
    assert_eq!(pki.post(closed.address("http"), false), None);
    assert_eq!(closed.stats.requests(Outcome::Taken), 1);
}

/// Scenario: a hundred connections that speak no TLS.
/// Guarantee: they are counted, and the next sender is served.
#[test]
fn a22_accept_error_loop() {
    let pki = Pki::new();
    let world = with_tls(pki.tls(false));
    for i in 0..100 {
        let mut socket = client::connect(world.address("http"));
        socket.write_all(&[i; 64]).expect("it is read");
        let _ = std::io::Read::read_to_end(&mut socket, &mut Vec::new());
    }
    world.await_that("them to be counted", || world.figure("tls_errors") == 100);
    assert_eq!(pki.post(world.address("http"), false), Some(200));
}

#[test]
fn a_certificate_that_cannot_be_used_is_said_with_its_key() {
    let pki = Pki::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (tls, key) in [
        (Tls { cert_file: pki.path("nowhere"), ..pki.tls(false) }, "cert_file"),
        (Tls { cert_file: pki.path("server.key"), ..pki.tls(false) }, "cert_file"),
        (Tls { key_file: pki.path("server"), ..pki.tls(false) }, "key_file"),
        (Tls { key_file: pki.path("client.key"), ..pki.tls(false) }, "key_file"),
        (Tls { client_ca_file: Some(pki.path("server.key")), ..pki.tls(false) }, "client_ca_file"),
    ] {
        let otlp = relight_core::source::Otlp { tls: Some(tls), ..otlp_source() };
        let spec = relight_core::source::SourceSpec { name: "a".to_owned(), kind: SourceKind::Otlp(otlp) };
        let (hub, _opened) = crate::live::Hub::new(std::collections::BTreeMap::new());
        let clock = Arc::new(|| relight_core::Timestamp::MIN);
        let started = super::super::start(
            &spec,
            &Secrets::default(),
            &hub,
            clock,
            runtime.handle(),
            Path::new("no-journals"),
        );
        let message = started.err().expect("it cannot be used").to_string();
        assert!(message.contains(&format!("`sources.a.tls.{key}`")), "{message}");
    }
}
