//! Who is let in: bearer tokens, TLS, client certificates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use relight_core::responder::{Secret, Secrets};
use relight_core::source::{SourceKind, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::super::{Outcome, Running};
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

    /// Puts the listener's files where a listener looks for them.
    fn install(&self, place: &Path) -> Tls {
        let [cert_file, key_file, ca] = ["server", "server.key", "ca"].map(|name| {
            let path = place.join(name);
            std::fs::copy(self.path(name), &path).expect("written");
            path.to_string_lossy().into_owned()
        });
        Tls { cert_file, key_file, client_ca_file: Some(ca) }
    }

    fn client(&self, with_certificate: bool) -> Arc<ClientConfig> {
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
        Arc::new(config)
    }

    fn post(&self, to: SocketAddr, with_certificate: bool) -> Option<u16> {
        post_as(&self.client(with_certificate), to)
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(client: &Arc<ClientConfig>, to: SocketAddr) -> Stream {
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(Arc::clone(client), name).expect("a client");
    StreamOwned::new(connection, client::connect(to))
}

/// Sends `text`; the answer's status, or `None` if the other side does not want to talk.
fn ask(mut stream: Stream, text: &str) -> Option<u16> {
    stream.write_all(text.as_bytes()).ok()?;
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    Some(client::answer(first.chain(stream)).status)
}

/// Posts over TLS.
fn post_as(client: &Arc<ClientConfig>, to: SocketAddr) -> Option<u16> {
    ask(connect(client, to), &client::head("/v1/metrics", &[PROTOBUF], 0))
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
        let _ = socket.read_to_end(&mut Vec::new());
    }
    world.await_that("them to be counted", || world.figure("tls_errors") == 100);
    assert_eq!(pki.post(world.address("http"), false), Some(200));
}

/// Scenario: a listener's files are replaced by those of another authority while a sender is in the middle of its request; then by
/// a certificate without its key.
/// Guarantee: only what was read and swapped counts, for new connections: they see the new certificate, and who the authority of
/// before knew is let in no more, not even by resuming. The open one is answered. What does not fit is said and changes nothing.
#[test]
fn files_that_were_replaced_are_for_new_connections() {
    let (old, new) = (Pki::new(), Pki::new());
    let place = tempfile::tempdir().expect("a folder");
    let world = with_tls(old.install(place.path()));
    let to = world.address("http");
    let tls = world.running.as_ref().and_then(Running::tls).expect("it has TLS");
    let known = old.client(true);
    assert_eq!(post_as(&known, to), Some(200));
    let mut open = connect(&known, to);
    open.write_all(b"POST /v1/metrics HTTP/1.1\r\n").expect("it listens");

    new.install(place.path());
    let reread = tls.read_again().unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((post_as(&known, to), new.post(to, true)), (Some(200), None));
    reread.swap();
    assert_eq!(new.post(to, true), Some(200));
    assert_eq!(post_as(&known, to), None);
    let head = client::head("/v1/metrics", &[PROTOBUF], 0);
    assert_eq!(ask(open, head.split_once("\r\n").expect("lines").1), Some(200));

    std::fs::copy(old.path("server"), place.path().join("server")).expect("written");
    let why = tls.read_again().err().expect("they do not fit").to_string();
    assert!(why.contains("`sources.test.tls.key_file`"), "{why}");
    assert_eq!(new.post(to, true), Some(200));
}

#[test]
fn a_certificate_that_cannot_be_used_is_said_with_its_key() {
    let pki = Pki::new();
    std::fs::write(pki.path("damaged"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for (tls, key) in [
        (Tls { cert_file: pki.path("nowhere"), ..pki.tls(false) }, "cert_file"),
        (Tls { cert_file: pki.path("server.key"), ..pki.tls(false) }, "cert_file"),
        (Tls { cert_file: pki.path("damaged"), ..pki.tls(false) }, "cert_file"),
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
