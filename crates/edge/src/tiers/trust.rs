//! Who edges are to each other: TLS 1.3 with certificates on both sides, of one authority. The name in a certificate is that of
//! a node, by the URI `perigee://edge/NAME`, as a cluster's authority writes it, or else as a DNS name. A certificate with a
//! URI of another role (a control's, a router's) is no edge's, whatever DNS names it has.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use ::trust::{edge_names, server_verifier};
use model::settings::TierFiles;
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

/// What is spoken between edges (ALPN, RFC 7301).
const HTTP2: &[u8] = b"h2";

/// What an edge shows to others, and whom it believes.
#[derive(Debug)]
pub struct TierIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

impl TierIdentity {
    /// From certificates: `chain` begins with the node's own.
    ///
    /// # Errors
    /// The authority's certificate cannot stand for one; the node's names no edge.
    pub fn new(
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<TierIdentity, String> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| format!("the authority's certificate: {error}"))?;
        }
        let own = chain.first().ok_or("there is no certificate")?;
        if edge_names(own).is_empty() {
            return Err(
                "the certificate names no edge: it has neither a DNS name nor perigee://edge/NAME".into()
            );
        }
        let identity = TierIdentity { chain, key, roots: Arc::new(roots) };
        // What TLS would refuse at the first connection is told now.
        identity.server_config().map_err(|error| error.to_string())?;
        Ok(identity)
    }

    /// Reads it from PEM files. The error names the file and what is wrong with it.
    pub fn read(files: &TierFiles) -> Result<TierIdentity, String> {
        let wrong = |path: &Path, what: &dyn Display| format!("{}: {what}", path.display());
        let certificates = |path: &Path| {
            let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, &error))?;
            let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(path, &error))?;
            match read.is_empty() {
                true => Err(wrong(path, &"there is no certificate in it; wanted is one in PEM")),
                false => Ok(read),
            }
        };
        let (chain, authorities) = (certificates(&files.certificate)?, certificates(&files.authority)?);
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
        TierIdentity::new(authorities, chain, key).map_err(|error| wrong(&files.certificate, &error))
    }

    /// Whether it is this node's.
    pub fn is_of(&self, node: &str) -> bool {
        self.chain.first().is_some_and(|own| edge_names(own).iter().any(|name| name == node))
    }

    /// For those who ask this edge: they show a certificate of the authority. Whose, [`edge_names`] says.
    fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // Each connection shows a certificate that holds now: one of a node that was let go does not come back by a ticket.
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For asking the node of this name.
    fn client_config(&self, node: &str) -> Result<ClientConfig, rustls::Error> {
        let (node, roots) = (node.to_owned(), self.roots.clone());
        let verifier = server_verifier(move |server| {
            server.verify(&roots)?;
            match edge_names(server.certificate).contains(&node) {
                true => Ok(()),
                false => Err(CertificateError::NotValidForName.into()),
            }
        });
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// The identity in force, which is renewed while connections stand.
#[derive(Debug, Default)]
pub(crate) struct Certified {
    identity: RwLock<Option<Arc<TierIdentity>>>,
}

impl Certified {
    pub(crate) fn replace(&self, identity: TierIdentity) {
        *self.identity.write() = Some(Arc::new(identity));
    }

    pub(crate) fn is_there(&self) -> bool {
        self.identity.read().is_some()
    }

    /// See [`TierIdentity::server_config`]. One per connection between edges, of which there are few.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let identity = self.identity.read().clone().ok_or("this edge has no certificate for other edges")?;
        identity.server_config().map(Arc::new).map_err(|error| error.to_string())
    }

    /// See [`TierIdentity::client_config`].
    pub(crate) fn client(&self, node: &str) -> Result<Arc<ClientConfig>, String> {
        let identity = self.identity.read().clone().ok_or("this edge has no certificate for other edges")?;
        identity.client_config(node).map(Arc::new).map_err(|error| error.to_string())
    }
}
