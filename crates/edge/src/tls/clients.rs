//! Visitors' own certificates: whose are believed, and what one connection has shown.
//!
//! Which site a handshake is for is known once its first message has come (SNI), and a QUIC connection takes its TLS
//! configuration before that. So where any site asks for certificates, each handshake gets a configuration of its own, whose
//! parts share one [`Asking`]: the choice of our certificate, which comes first, says for which site it is, and all that
//! comes later goes by that. What comes before it can only be answered with no.
//!
//! ```text
//! ClientHello ─► resolve: which site ─► ticket of that site's? ─┬─ no ──► ask, if the site does ─► verify ─┐
//!                                                               └─ yes ─► verify what is in it again ──────┴─► Identity
//! ```
//!
//! A session that is resumed brings its certificate along. Tickets are bound to the authorities of the site, so that those
//! from before a change of them, or from a site that asked for nothing, resume nothing here; and the library resumes a
//! session for the name that it began with alone.
//!
//! What is not done: lists of revoked certificates (RFC 5280 §5), certificates asked for in the middle of a connection.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ::aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use model::rule::ClientCertificate;
use model::{Site, Snapshot};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use semantics::Wall;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::tickets::Tickets;
use super::{BadFile, ByName, Time, TlsBase, is_from_authority, read_file};
use crate::clock::Clock;
use crate::loaded::Loaded;
use crate::refusal::Refusal;

// --- Whose certificates are believed ---

/// The authorities of one `client_ca` file.
#[derive(Clone, Debug)]
pub struct ClientAuthorities {
    source: PathBuf,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of their certificates: tells them from those that the file had before.
    digest: [u8; DIGEST_BYTES],
}

const DIGEST_BYTES: usize = 32;

impl ClientAuthorities {
    /// Reads a PEM file with one certificate or more.
    pub fn read(path: &Path) -> Result<ClientAuthorities, BadFile> {
        let wrong = |what: &dyn std::fmt::Display| BadFile::new(path, what);
        let text = read_file(path)?;
        let mut roots = RootCertStore::empty();
        let mut digest = digest::Context::new(&digest::SHA256);
        for (certificate, number) in CertificateDer::pem_slice_iter(&text).zip(1..) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            digest.update(&certificate);
            roots.add(certificate).map_err(|error| {
                wrong(&format_args!("its certificate {number} cannot stand for an authority: {error}"))
            })?;
        }
        if roots.is_empty() {
            return Err(wrong(&"there is no certificate in it; wanted are those of the authorities, as PEM"));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| wrong(&error))?;
        let mut bytes = [0; DIGEST_BYTES];
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(ClientAuthorities { source: path.to_owned(), verifier, digest: bytes })
    }

    /// The file.
    pub(crate) fn source(&self) -> &Path {
        &self.source
    }
}

/// The authorities that the sites of a configuration name; or everything that is wrong with their files.
pub fn read_client_authorities(snapshot: &Snapshot) -> Result<Vec<ClientAuthorities>, Vec<BadFile>> {
    let mut files: Vec<&Path> = snapshot.sites.iter().filter_map(|site| site.client_ca.as_deref()).collect();
    files.sort_unstable();
    files.dedup();
    let (read, wrong): (Vec<_>, Vec<_>) =
        files.into_iter().map(ClientAuthorities::read).partition(Result::is_ok);
    let wrong: Vec<BadFile> = wrong.into_iter().filter_map(Result::err).collect();
    match wrong.is_empty() {
        true => Ok(read.into_iter().flatten().collect()),
        false => Err(wrong),
    }
}

/// Whether any rule of the site wants to see certificates.
pub(crate) fn asks(site: &Site) -> bool {
    let rules = site.rules.iter().chain(std::iter::once(&site.defaults));
    rules.into_iter().any(|rule| rule.client_certificate != ClientCertificate::Off)
}

// --- One handshake ---

/// What one handshake goes by.
pub(crate) struct Asking {
    loaded: Arc<Loaded>,
    certificates: Arc<ByName>,
    tickets: Arc<Tickets>,
    clock: Clock,
    /// The index of the site that the handshake is for, as soon as that is known, if it asks for certificates.
    site: OnceLock<Option<usize>>,
    /// Whether a certificate has been verified in this handshake.
    is_verified: AtomicBool,
}

impl Asking {
    pub(super) fn new(base: &TlsBase, certificates: Arc<ByName>, loaded: Arc<Loaded>) -> Arc<Asking> {
        Arc::new(Asking {
            loaded,
            certificates,
            tickets: base.tickets.clone(),
            clock: base.clock.clone(),
            site: OnceLock::new(),
            is_verified: AtomicBool::new(false),
        })
    }

    fn authorities(&self) -> Option<&ClientAuthorities> {
        self.loaded.client_authorities((*self.site.get()?)?)
    }

    /// What the handshake, which is over, has shown: the visitor's `chain`, if there is one.
    pub(crate) fn shown(&self, chain: Option<&[CertificateDer<'_>]>) -> Shown {
        let site = self.site.get().copied().flatten();
        let (Some(site), Some(authorities)) = (site, self.authorities()) else { return Shown::Unasked };
        let certificate = chain.and_then(|chain| self.certificate(authorities, chain));
        let site = self.loaded.snapshot.sites[site].name.clone();
        Shown::To(Rc::new(Identity { site, digest: authorities.digest, certificate }))
    }

    /// The visitor's certificate, if it is good now: that of a resumed session was so when the session began.
    fn certificate(
        &self,
        authorities: &ClientAuthorities,
        chain: &[CertificateDer<'_>],
    ) -> Option<Certificate> {
        let (first, intermediates) = chain.split_first()?;
        if !self.is_verified.load(Ordering::Relaxed) {
            let now = Time(self.clock.clone()).current_time()?;
            authorities.verifier.verify_client_cert(first, intermediates, now).ok()?;
        }
        let (_, parsed) = X509Certificate::from_der(first).ok()?;
        let not_after = Wall(parsed.validity().not_after.timestamp().saturating_mul(1000));
        // A Byte Sequence of RFC 8941 §3.3.5: RFC 9440 §2.1.
        let field = format!(":{}:", BASE64_STANDARD.encode(first));
        Some(Certificate { field: field.into_bytes().into(), not_after })
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("site", &self.site).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Asking {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The second time, after a retry, it is for the same name.
        self.site.get_or_init(|| {
            if is_from_authority(&hello) {
                return None;
            }
            let site = self.loaded.snapshot.site_for(&hello.server_name()?.to_ascii_lowercase())?;
            self.loaded.client_authorities(site.index).map(|_| site.index)
        });
        self.certificates.resolve(hello)
    }
}

impl ClientCertVerifier for Asking {
    fn offer_client_auth(&self) -> bool {
        // Asked before the first message has come, it means whether that may be.
        self.site.get().is_none() || self.authorities().is_some()
    }

    /// A rule refuses those who show none, with a page that says so.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities().map_or(&[], |authorities| authorities.verifier.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let authorities = self.authorities().ok_or(rustls::CertificateError::UnknownIssuer)?;
        let verified = authorities.verifier.verify_client_cert(end_entity, intermediates, now)?;
        self.is_verified.store(true, Ordering::Relaxed);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let authorities = self.authorities().ok_or(rustls::CertificateError::UnknownIssuer)?;
        authorities.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let authorities = self.authorities().ok_or(rustls::CertificateError::UnknownIssuer)?;
        authorities.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities()
            .map_or_else(Vec::new, |authorities| authorities.verifier.supported_verify_schemes())
    }
}

impl ProducesTickets for Asking {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(plain, self.binding())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(ticket, self.binding())
    }
}

impl Asking {
    /// What tickets are bound to.
    fn binding(&self) -> &[u8] {
        self.authorities().map_or(&[], |authorities| &authorities.digest)
    }
}

// --- What came of it ---

/// What a connection has shown of its visitor.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// Nothing, as it is not encrypted here.
    Nothing,
    /// Nothing, as its handshake was for no site that asks.
    Unasked,
    /// What a site wanted to see.
    To(Rc<Identity>),
}

/// What one site has been shown in a handshake.
#[derive(Debug)]
pub(crate) struct Identity {
    site: Box<str>,
    /// Of the authorities that have judged it.
    digest: [u8; DIGEST_BYTES],
    certificate: Option<Certificate>,
}

#[derive(Debug)]
struct Certificate {
    /// As the value of Client-Cert.
    field: Box<[u8]>,
    not_after: Wall,
}

impl Shown {
    /// Whether a request to `site` by this connection may be answered, as far as certificates go.
    ///
    /// # Errors
    /// 421 when the connection's handshake was for another site, or before the site changed its authorities: another
    /// connection may do (RFC 9110 §15.5.20). 403 when a certificate is missing.
    pub(crate) fn check(
        &self,
        wanted: ClientCertificate,
        loaded: &Loaded,
        site: &Site,
        now: Wall,
    ) -> Result<(), Refusal> {
        match (wanted, self) {
            (ClientCertificate::Off, _) | (ClientCertificate::Optional, Shown::Nothing) => Ok(()),
            (_, Shown::Unasked) => Err(Refusal::Misdirected),
            (_, Shown::To(identity)) if !identity.is_for(loaded, site) => Err(Refusal::Misdirected),
            (ClientCertificate::Required, _) if self.certificate(loaded, site, now).is_none() => {
                Err(Refusal::NoCertificate)
            }
            (ClientCertificate::Optional | ClientCertificate::Required, _) => Ok(()),
        }
    }

    /// The value of Client-Cert for a request to `site` (RFC 9440 §2.2); `None` when no certificate was shown to it, or it
    /// has ended since.
    pub(crate) fn certificate(&self, loaded: &Loaded, site: &Site, now: Wall) -> Option<&[u8]> {
        let Shown::To(identity) = self else { return None };
        let certificate = identity.certificate.as_ref().filter(|one| now <= one.not_after)?;
        identity.is_for(loaded, site).then_some(&certificate.field)
    }
}

impl Identity {
    /// Whether it was shown to this site, and judged by the authorities that the site goes by now.
    fn is_for(&self, loaded: &Loaded, site: &Site) -> bool {
        let authorities = loaded.client_authorities(site.index);
        site.name == self.site && authorities.is_some_and(|authorities| authorities.digest == self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused_by_name() {
        let file = std::env::temp_dir().join(format!("perigee-authorities-{}.pem", std::process::id()));
        let check = |text: &str, wanted: &str| {
            std::fs::write(&file, text).unwrap();
            let refused = ClientAuthorities::read(&file).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{}: ", file.display())), "{refused}");
            assert!(refused.contains(wanted), "{refused}");
        };
        check("", "there is no certificate in it; wanted are those of the authorities");
        check(
            "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n",
            "its certificate 1",
        );
        let authority = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem();
        check(&format!("{authority}-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n"), "");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(ClientAuthorities::read(&file).unwrap_err().path, file);
    }
}
