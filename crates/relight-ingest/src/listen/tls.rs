//! TLS of a listener: its certificate, and whose certificates it accepts.
//!
//! Files are read at the start, and again when a reload asks for it. Nothing watches them: while a certificate and its key
//! are being replaced they do not fit, and only who replaces them knows when both are there.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use relight_core::source::Tls;
use relight_files::read_regular;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::IngestError;

/// Mozilla's bundle of all authorities has 220 KB.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// A source's TLS: where its files are, and what new connections are accepted with.
pub struct ServerTls {
    source: String,
    files: Tls,
    acceptor: RwLock<TlsAcceptor>,
}

/// What a source's TLS files hold now. Dropped, nothing has changed.
pub struct Reread {
    tls: Arc<ServerTls>,
    acceptor: TlsAcceptor,
}

impl ServerTls {
    pub(super) fn open(source: &str, files: &Tls) -> Result<Arc<Self>, IngestError> {
        let acceptor = RwLock::new(acceptor(source, files)?);
        Ok(Arc::new(Self { source: source.to_owned(), files: files.clone(), acceptor }))
    }

    /// For one connection that begins.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again and checks them as at the start; changes nothing yet.
    pub fn read_again(self: &Arc<Self>) -> Result<Reread, IngestError> {
        Ok(Reread { tls: Arc::clone(self), acceptor: acceptor(&self.source, &self.files)? })
    }
}

impl Reread {
    /// New connections are accepted with it from now on; those that are open stay as they are.
    pub fn swap(self) {
        *self.tls.acceptor.write().unwrap_or_else(PoisonError::into_inner) = self.acceptor;
    }
}

/// Loads what `tls` names. `source` is for the error.
fn acceptor(source: &str, tls: &Tls) -> Result<TlsAcceptor, IngestError> {
    let failed = |key: &str, path: &str, why: &dyn std::fmt::Display| IngestError::Tls {
        key: format!("sources.{source}.tls.{key}"),
        path: path.into(),
        why: why.to_string(),
    };
    let chain = certificates(&tls.cert_file).map_err(|why| failed("cert_file", &tls.cert_file, &why))?;
    let key = key(&tls.key_file).map_err(|why| failed("key_file", &tls.key_file, &why))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|why| failed("cert_file", &tls.cert_file, &why))?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let failed = |why: &dyn std::fmt::Display| failed("client_ca_file", path, why);
            let mut roots = RootCertStore::empty();
            for authority in certificates(path).map_err(|why| failed(&why))? {
                roots.add(authority).map_err(|why| failed(&why))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|why| failed(&why))?)
        }
    };
    // With it comes a store of sessions of its own: who an authority of before let in cannot resume.
    let mut config = builder.with_single_cert(chain, key).map_err(|why| match why {
        rustls::Error::InvalidCertificate(_) => failed("cert_file", &tls.cert_file, &why),
        _ => failed("key_file", &tls.key_file, &why),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&pem(path)?).map_err(|error| error.to_string())
}

/// The bytes of a PEM file. A pipe or a device is none: it could keep a reload waiting.
fn pem(path: &str) -> Result<Vec<u8>, String> {
    let file = read_regular(Path::new(path), MAX_PEM_BYTES).map_err(|error| format!("it {error}"))?;
    Ok(file.bytes)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = pem(path)?;
    let read = CertificateDer::pem_slice_iter(&bytes);
    let all = read.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if all.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(all) }
}
