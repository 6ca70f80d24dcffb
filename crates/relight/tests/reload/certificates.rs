//! SIGHUP after a listener's TLS files were replaced.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Daemon, PATIENCE, TAKEN, config, edit, point, quiet, receiver};

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate that signs itself, and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Identity {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("signed");
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Where the daemon looks for its certificate and its key.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn within(dir: &Path) -> Self {
        Self { certificate: dir.join("tls.pem"), key: dir.join("tls.key") }
    }

    fn write(&self, certificate: &Identity, key: &Identity) {
        std::fs::write(&self.certificate, &certificate.pem).expect("a folder of our own");
        std::fs::write(&self.key, &key.key).expect("a folder of our own");
    }

    /// As a source of a config.
    fn source(&self) -> String {
        format!(
            "secret: {{type: otlp, grpc: off, http: \"127.0.0.1:0\", tls: {{cert_file: {}, key_file: {}}}}}",
            self.certificate.display(),
            self.key.display()
        )
    }
}

/// A connection to whom shows one of `trusted`.
fn connect(to: SocketAddr, trusted: &[&Identity]) -> Stream {
    let mut roots = RootCertStore::empty();
    for identity in trusted {
        roots.add(identity.certificate.clone()).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(to).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let name = "localhost".try_into().expect("a name");
    let mut stream =
        StreamOwned::new(ClientConnection::new(Arc::new(client), name).expect("a client"), socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).expect("it shows what is trusted");
    }
    stream
}

/// Whether a new connection is shown this one of them.
fn shows(to: SocketAddr, all: &[&Identity], wanted: &Identity) -> bool {
    let stream = connect(to, all);
    stream.conn.peer_certificates().and_then(<[_]>::first) == Some(&wanted.certificate)
}

/// Posts on a connection that stays open.
fn post(stream: &mut Stream, second: i64) {
    let body = point(second, quiet(second));
    let head = "POST /v1/metrics HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
    let mut answer = Vec::new();
    let mut read = |bytes: usize| {
        let begun = answer.len();
        answer.resize(begun + bytes, 0);
        stream.read_exact(&mut answer[begun..]).expect("it answers");
        String::from_utf8_lossy(&answer).to_lowercase()
    };
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head = read(1);
    }
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    read(length.parse().expect("a number"));
}

/// Scenario: a sender stays connected while certificate and key are replaced and a SIGHUP comes. Then the certificate is replaced
/// alone, then taken away, with a SIGHUP each and another change in the config; at last all is as it should be.
/// Guarantee: after the SIGHUP, not before, new connections are shown the new certificate, and the sender goes on. A file that is
/// bad or missing is told with its key and path; nothing of the config is taken then, and the certificate of before is shown.
#[test]
fn g03_reload_same_port_with_other_certificates() {
    let dir = tempfile::tempdir().expect("a folder");
    let (hook, _told) = receiver(&[200]);
    let (first, second, third) = (Identity::new(), Identity::new(), Identity::new());
    let all = [&first, &second, &third];
    let files = Files::within(dir.path());
    files.write(&first, &first);
    let file = config(dir.path(), hook);
    edit(&file, "journal: off}}", &format!("journal: off}}, {}}}", files.source()));
    let daemon = Daemon::start(&file);
    let to = daemon.others[0];
    let mut sender = connect(to, &all);
    post(&mut sender, 0);

    files.write(&second, &second);
    assert!(shows(to, &all, &first));
    daemon.hang_up();
    daemon.wait_until_said("the config was taken");
    assert!(shows(to, &all, &second));
    post(&mut sender, 1);

    files.write(&third, &second);
    edit(&file, "half_life: 30s", "half_life: 40s");
    daemon.hang_up();
    let bad = |key: &str, path: &Path| format!("`{}`, which `sources.secret.tls.{key}`", path.display());
    daemon.wait_until_said(&bad("key_file", &files.key));
    daemon.wait_for(TAKEN, |taken| taken == 0.0);
    assert!(shows(to, &all, &second));

    std::fs::remove_file(&files.certificate).expect("it was written");
    daemon.hang_up();
    daemon.wait_until_said(&bad("cert_file", &files.certificate));
    assert_eq!(daemon.said("rows start cold"), 0, "a part of it was taken");
    assert!(shows(to, &all, &second));

    files.write(&third, &third);
    daemon.hang_up();
    daemon.wait_for(TAKEN, |taken| taken == 1.0);
    daemon.wait_until_said("rows start cold");
    assert!(shows(to, &all, &third));
    post(&mut sender, 2);
    daemon.wait_for("relight_points_total", |n| n == 3.0);
    assert!(daemon.stop("-TERM").success());
}
