//! TLS towards visitors: which certificate answers for a name, and the configuration that all handshakes share. Both are
//! made anew as a whole when a certificate changes, and published to the workers; a handshake takes what is in force and
//! locks nothing.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use model::Snapshot;
use model::settings::{CertificateFiles, TlsVersion};
use observe::Handshake;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use semantics::Wall;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

mod tickets;

use tickets::Tickets;

use crate::clock::Clock;

const TLS13_ALONE: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Protocols that are offered, the best first (ALPN, RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

/// The same for QUIC (RFC 9114 §3.1).
const QUIC_PROTOCOL: &[u8] = b"h3";

/// What an authority offers that looks whose a domain is (RFC 8737 §3), and nothing else beside it.
pub(crate) const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// A certificate that can be served.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What it is for: lower-case names, `*.` at the front of some, and addresses.
    pub names: Vec<Box<str>>,
    /// Who issued it, as text.
    pub issuer: Box<str>,
    /// The file that it comes from; empty for one that was ordered.
    pub source: Box<str>,
    /// When it begins to hold.
    pub not_before: Wall,
    /// When it ends to hold.
    pub not_after: Wall,
    /// Whether it demands an OCSP response beside it.
    must_staple: bool,
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a chain and its key from two PEM files. The error names the file, what is wrong with it and what was wanted.
    pub fn read(files: &CertificateFiles) -> Result<Certificate, String> {
        let wrong = |path: &Path, what: &dyn Display| format!("{}: {what}", path.display());
        let chain = std::fs::read(&files.chain).map_err(|error| wrong(&files.chain, &error))?;
        let key = std::fs::read(&files.key).map_err(|error| wrong(&files.key, &error))?;
        let certificate = Certificate::from_pem(&chain, &key).map_err(|bad| match bad {
            BadCertificate::Chain(what) => wrong(&files.chain, &what),
            BadCertificate::Key(what) => wrong(&files.key, &what),
        })?;
        let mut key = CertifiedKey::clone(&certificate.key);
        if let Some(path) = &files.ocsp {
            let staple = std::fs::read(path).map_err(|error| wrong(path, &error))?;
            if !is_staple(&staple) {
                return Err(wrong(path, &"is no good answer of an OCSP responder, as DER (RFC 6960 §4.2.1)"));
            }
            key.ocsp = Some(staple);
        }
        let key = Arc::new(key);
        Ok(Certificate { key, source: files.chain.display().to_string().into(), ..certificate })
    }

    /// Whether it demands an OCSP response to be shown with it, and there is none: browsers that look refuse it (RFC 7633).
    pub fn lacks_staple(&self) -> bool {
        self.must_staple && self.key.ocsp.is_none()
    }

    /// Whether it is for `domain`, which may be a wildcard itself (RFC 9525 §6.3).
    pub fn is_for(&self, domain: &str) -> bool {
        let wildcard = domain.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|name| **name == *domain || Some(&**name) == wildcard.as_deref())
    }

    /// Takes a chain (the certificate first) and its key as PEM text.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, BadCertificate> {
        let in_chain = |error: &dyn Display| BadCertificate::Chain(error.to_string());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| in_chain(&error))?;
        let first = chain.first().ok_or_else(|| in_chain(&"there is no certificate in it"))?;
        let (_, parsed) = X509Certificate::from_der(first)
            .map_err(|error| in_chain(&format_args!("its first certificate cannot be read: {error}")))?;
        let names = names_of(&parsed);
        if names.is_empty() {
            return Err(in_chain(&"its first certificate names no host (subjectAltName)"));
        }
        let wall = |time: x509_parser::time::ASN1Time| Wall(time.timestamp().saturating_mul(1000));
        let (not_before, not_after) = (wall(parsed.validity().not_before), wall(parsed.validity().not_after));
        let issuer = parsed.issuer().to_string().into();
        let must_staple = parsed.extensions().iter().any(|extension| {
            extension.oid.to_id_string() == TLS_FEATURE && demands_status_request(extension.value)
        });
        let key = CertifiedKey::new(chain, private_key(key)?);
        key.keys_match().map_err(|_| BadCertificate::Key("it is not the key of the certificate".into()))?;
        Ok(Certificate {
            names,
            issuer,
            source: "".into(),
            must_staple,
            not_before,
            not_after,
            key: Arc::new(key),
        })
    }
}

/// What a certificate authority may ask for now, to see whose a domain is (RFC 8555 §8).
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Whose ownership is shown, in lower case.
    pub domain: Box<str>,
    /// The last segment of the path that HTTP-01 asks for (RFC 8555 §8.3).
    pub token: Box<str>,
    /// What is answered there.
    pub key_authorization: Box<str>,
    /// What is shown in a handshake by TLS-ALPN-01 (RFC 8737 §3).
    pub certificate: ChallengeCertificate,
}

/// The certificate of a [`Challenge`]. It is for the authority alone, and no other part of the TLS library would take it:
/// its critical extension is unknown there.
#[derive(Clone, Debug)]
pub struct ChallengeCertificate(Arc<CertifiedKey>);

impl ChallengeCertificate {
    /// Takes the certificate and its key as PEM text. Whether they belong together is not looked at.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        let certificate = CertificateDer::from_pem_slice(certificate)
            .map_err(|error| BadCertificate::Chain(error.to_string()))?;
        Ok(ChallengeCertificate(Arc::new(CertifiedKey::new(vec![certificate], private_key(key)?))))
    }
}

/// Which of the two files is wrong, and what with it.
#[derive(Debug)]
pub enum BadCertificate {
    /// The chain.
    Chain(String),
    /// The key.
    Key(String),
}

fn private_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, BadCertificate> {
    let key = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| BadCertificate::Key(format!("there is no private key in it ({error})")))?;
    aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| BadCertificate::Key(format!("a key of a kind that cannot be used: {error}")))
}

/// The extension that names what a server must offer (RFC 7633 §4).
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";

/// Whether its value, a SEQUENCE OF INTEGER, has 5: status_request.
fn demands_status_request(value: &[u8]) -> bool {
    value.windows(3).any(|integer| integer == [0x02, 0x01, 0x05])
}

/// Whether `der` begins as a successful OCSPResponse does: SEQUENCE, ENUMERATED 0. What it says of which certificate is
/// between the authority and the visitor.
fn is_staple(der: &[u8]) -> bool {
    let Some((0x30, rest)) = der.split_first().map(|(first, rest)| (*first, rest)) else { return false };
    let length_bytes = match rest.first() {
        Some(short @ 0..0x80) => {
            return usize::from(*short) + 2 == der.len() && rest[1..].starts_with(&[0x0a, 1, 0]);
        }
        Some(long) => usize::from(long & 0x7f),
        None => return false,
    };
    let Some(length) = rest.get(1..=length_bytes).filter(|_| (1..=3).contains(&length_bytes)) else {
        return false;
    };
    let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    der.len() == length + length_bytes + 2 && rest[1 + length_bytes..].starts_with(&[0x0a, 1, 0])
}

/// The names that browsers compare with (RFC 9525 §2: subjectAltName alone).
fn names_of(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => {
                <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string().into())
            }
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::IpAddr::from(bytes).to_string().into()),
            _ => None,
        },
        _ => None,
    });
    names.collect()
}

/// Certificates by the names that they are for.
#[derive(Debug, Default)]
struct ByName {
    /// `www.shop.example`, `*.shop.example`. Of several, those given first are tried first.
    names: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// For visitors who name no host, which old programs and those that use addresses do not.
    first: Option<Arc<CertifiedKey>>,
    /// For authorities that look whose a domain is.
    challenges: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl ByName {
    fn of(certificates: &[Certificate], challenges: &[Challenge]) -> Self {
        let first = certificates.first().map(|first| first.key.clone());
        let challenges =
            challenges.iter().map(|one| (one.domain.clone(), one.certificate.0.clone())).collect();
        let mut by_name = ByName { names: HashMap::new(), first, challenges };
        for certificate in certificates {
            for name in &certificate.names {
                by_name.names.entry(name.clone()).or_default().push(certificate.key.clone());
            }
        }
        by_name
    }

    /// Those for `host`, which is lower case: its own, or those with a `*` for its first label (RFC 9525 §6.3).
    fn find(&self, host: &str) -> &[Arc<CertifiedKey>] {
        if let Some(own) = self.names.get(host) {
            return own;
        }
        let Some((_, rest)) = host.split_once('.') else { return &[] };
        self.names.get(&*format!("*.{rest}")).map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if !self.challenges.is_empty() && is_from_authority(&hello) {
            return self.challenges.get(&*hello.server_name()?.to_ascii_lowercase()).cloned();
        }
        let Some(host) = hello.server_name() else { return self.first.clone() };
        let found = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.find(&host.to_ascii_lowercase()),
            false => self.find(host),
        };
        let is_usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        found.iter().find(is_usable).cloned()
    }
}

/// Whether nothing but the look for a challenge is offered (RFC 8737 §3).
fn is_from_authority(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_PROTOCOL) && offered.next().is_none())
}

/// What handshakes need that outlives a change of certificates.
pub(crate) struct TlsBase {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

impl TlsBase {
    /// `ticket_secret`: what session tickets are made from.
    pub(crate) fn new(ticket_secret: &[u8], clock: Clock) -> Result<Self, rustls::Error> {
        let mut provider = aws_lc_rs::default_provider();
        // SHA-256 has instructions of its own where SHA-384 has none: a handshake costs a fifth less (bench/tls.sh).
        let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        Ok(TlsBase { provider: Arc::new(provider), tickets: Arc::new(Tickets::new(ticket_secret, clock)?) })
    }
}

/// What the configuration says of handshakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered {
    min_version: TlsVersion,
    http2: bool,
}

impl Offered {
    pub(crate) fn by(snapshot: &Snapshot) -> Self {
        Offered { min_version: snapshot.edge.tls.min_version, http2: snapshot.switches.http2 }
    }
}

/// TLS as it is in force.
pub(crate) struct Tls {
    /// For all handshakes.
    pub(crate) config: Arc<ServerConfig>,
    /// For those of QUIC: TLS 1.3 alone, and nothing of a request before the handshake is done.
    pub(crate) quic: Arc<QuicServerConfig>,
    /// Answers to HTTP-01, by token.
    answers: HashMap<Box<str>, Box<str>>,
}

impl Tls {
    /// With these certificates; without any, every handshake is refused. `challenges` are answered too.
    pub(crate) fn new(
        base: &TlsBase,
        offered: Offered,
        certificates: &[Certificate],
        challenges: &[Challenge],
    ) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(base.provider.clone())
            .with_protocol_versions(match offered.min_version {
                TlsVersion::Tls12 => rustls::ALL_VERSIONS,
                TlsVersion::Tls13 => TLS13_ALONE,
            })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName::of(certificates, challenges)));
        config.alpn_protocols = PROTOCOLS
            .iter()
            .filter(|name| offered.http2 || **name != HTTP2)
            .map(|name| name.to_vec())
            .collect();
        if !challenges.is_empty() {
            config.alpn_protocols.push(ACME_PROTOCOL.to_vec());
        }
        config.ignore_client_order = true;
        config.ticketer = base.tickets.clone();
        // Sessions live in tickets alone: a visitor who never returns costs no memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let mut quic = ServerConfig::builder_with_provider(base.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(config.cert_resolver.clone());
        quic.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()];
        quic.ticketer = base.tickets.clone();
        quic.session_storage = config.session_storage.clone();
        let quic = QuicServerConfig::try_from(quic)
            .map_err(|_| rustls::Error::General("the cipher that QUIC begins with is missing".to_owned()))?;
        let answers = challenges.iter().map(|one| (one.token.clone(), one.key_authorization.clone()));
        Ok(Tls { config: Arc::new(config), quic: Arc::new(quic), answers: answers.collect() })
    }

    /// What is answered to an authority that asks for `token` by HTTP-01; `None` when nobody asked for that.
    pub(crate) fn key_authorization(&self, token: &str) -> Option<&str> {
        self.answers.get(token).map(|answer| &**answer)
    }
}

// --- Counting ---

/// How a handshake that came to its end is counted.
pub(crate) fn done(connection: &ServerConnection) -> Handshake {
    let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    match connection.protocol_version() {
        _ if connection.alpn_protocol() == Some(ACME_PROTOCOL) => Handshake::Challenge,
        Some(ProtocolVersion::TLSv1_2) if is_resumed => Handshake::Tls12Resumed,
        Some(ProtocolVersion::TLSv1_2) => Handshake::Tls12,
        _ if is_resumed => Handshake::Tls13Resumed,
        _ => Handshake::Tls13,
    }
}

/// How one that did not is.
pub(crate) fn failed(error: &io::Error) -> Handshake {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None => Handshake::Closed,
        // The library has no other name for it.
        Some(rustls::Error::General(_)) => Handshake::NoCertificate,
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            Handshake::NothingInCommon
        }
        Some(rustls::Error::AlertReceived(_)) => Handshake::Refused,
        Some(_) => Handshake::Malformed,
    }
}

/// The certificates of a configuration, in its order; or everything that is wrong with them.
pub fn read_certificates(files: &[CertificateFiles]) -> Result<Vec<Certificate>, Vec<String>> {
    let (read, wrong): (Vec<_>, Vec<_>) = files.iter().map(Certificate::read).partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    match wrong.is_empty() {
        true => Ok(read.into_iter().flatten().collect()),
        false => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    use super::*;

    fn certificate(names: &[&str], extensions: Vec<CustomExtension>) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut wanted = CertificateParams::new(names).unwrap();
        wanted.custom_extensions = extensions;
        let chain = wanted.self_signed(&key).unwrap().pem();
        Certificate::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn a_name_of_ten_thousand_is_found_and_costs_little() {
        let one = certificate(&["shared.example", "*.shared.example"], Vec::new());
        let many: Vec<Certificate> = (0..10_000)
            .map(|number| Certificate { names: vec![format!("{number}.example").into()], ..one.clone() })
            .chain([one.clone()])
            .collect();
        let by_name = ByName::of(&many, &[]);
        assert_eq!(by_name.names.len(), 10_002);
        let found = |name| by_name.find(name).len();
        assert_eq!([found("7.example"), found("9999.example"), found("10000.example")], [1, 1, 0]);
        assert_eq!(
            [found("a.shared.example"), found("a.b.shared.example"), found("shared.example")],
            [1, 0, 1]
        );
    }

    #[test]
    fn a_certificate_is_for_its_names_and_one_level_below_a_wildcard() {
        let certificate = certificate(&["shop.example", "*.shop.example"], Vec::new());
        let check = |domain, is_for| assert_eq!(certificate.is_for(domain), is_for, "{domain}");
        check("shop.example", true);
        check("www.shop.example", true);
        check("*.shop.example", true);
        check("a.www.shop.example", false);
        check("other.example", false);
    }

    #[test]
    fn a_demand_for_a_staple_is_seen() {
        let features = |features: &[u8]| {
            let list: Vec<u8> = features.iter().flat_map(|feature| [0x02, 0x01, *feature]).collect();
            let value = [&[0x30, list.len() as u8][..], &list].concat();
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], value)
        };
        assert!(!certificate(&["a.example"], Vec::new()).lacks_staple());
        assert!(!certificate(&["a.example"], vec![features(&[17])]).lacks_staple());
        assert!(certificate(&["a.example"], vec![features(&[17, 5])]).lacks_staple());
    }

    #[test]
    fn a_staple_is_a_whole_and_successful_answer() {
        let answer = |status: u8, content: usize| {
            let length = content + 3;
            let mut der = vec![0x30, 0x82, (length >> 8) as u8, length as u8, 0x0a, 1, status];
            der.resize(der.len() + content, 0);
            der
        };
        assert!(is_staple(&answer(0, 300)));
        assert!(is_staple(&[0x30, 3, 0x0a, 1, 0]));
        assert!(!is_staple(&answer(6, 300)), "unauthorized");
        assert!(!is_staple(&answer(0, 300)[..200]), "cut");
        for short in
            [&[][..], &[0x30], &[0x30, 0x82], &[0x30, 0x84, 1, 1, 1, 1], &[0x30, 0x80], b"-----BEGIN"]
        {
            assert!(!is_staple(short), "{short:?}");
        }
    }
}
