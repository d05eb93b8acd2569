//! TLS towards visitors: which certificate answers for a name, and the configuration that all handshakes share. Both are
//! made anew as a whole when a certificate changes, and published to the workers; a handshake takes what is in force and
//! locks nothing.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::aws_lc_rs::digest;
use model::Snapshot;
use model::settings::{CertificateFiles, Ocsp, TlsVersion};
use observe::Handshake;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use semantics::Wall;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

mod clients;
mod sessions;
mod staple;
mod tickets;

pub(crate) use clients::{Asking, Shown, asks};
pub use clients::{ClientAuthorities, read_client_authorities};
use sessions::Sessions;
pub use staple::{Responder, STAPLE_BYTES_MAX, Staple};
use tickets::Tickets;

use crate::clock::Clock;
use crate::loaded::Loaded;

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
    /// Whether one is to be fetched.
    fetches_staple: bool,
    staple: Option<Staple>,
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a chain and its key from two PEM files, and what is shown with them from a third if one is named.
    ///
    /// # Errors
    /// The files that cannot be used: all that cannot be read, and the first whose content is wrong.
    pub fn read(files: &CertificateFiles) -> Result<Certificate, Vec<BadFile>> {
        let key = read_file(&files.key);
        let staple = match &files.ocsp {
            Some(Ocsp::File(path)) => read_file(path).map(|der| Some((path, der))),
            _ => Ok(None),
        };
        let certificate = read_file(&files.chain).and_then(|chain| {
            let key = key.as_deref().unwrap_or_default();
            Certificate::from_pem(&chain, key).map_err(|bad| match bad {
                BadCertificate::Chain(what) => BadFile::new(&files.chain, what),
                BadCertificate::Key(what) => BadFile::new(&files.key, what),
            })
        });
        let (mut certificate, staple) = match (certificate, key, staple) {
            (Ok(certificate), Ok(_), Ok(staple)) => (certificate, staple),
            (certificate, key, staple) => {
                let wrong = [key.err(), certificate.err(), staple.err()];
                let mut wrong: Vec<BadFile> = wrong.into_iter().flatten().collect();
                // Of a key that cannot be read, nothing more is known.
                wrong.dedup_by(|next, first| next.path == first.path);
                return Err(wrong);
            }
        };
        certificate.source = files.chain.display().to_string().into();
        match staple {
            Some((path, der)) => {
                certificate.fetches_staple = false;
                certificate.take_staple(&der).map_err(|what| vec![BadFile::new(path, what)])?;
            }
            None if files.ocsp == Some(Ocsp::Fetch) => {
                certificate.fetches_staple = true;
                if certificate.responder().is_none() {
                    return Err(vec![BadFile::new(&files.chain, NO_RESPONDER)]);
                }
            }
            None => {}
        }
        Ok(certificate)
    }

    /// Whether it demands an OCSP response to be shown with it, and there is none now: browsers that look refuse it (RFC 7633).
    pub fn lacks_staple(&self, now: Wall) -> bool {
        self.must_staple && !self.staple.as_ref().is_some_and(|staple| staple.is_fresh(now))
    }

    /// The OCSP response that is shown with it while it holds.
    pub fn staple(&self) -> Option<&Staple> {
        self.staple.as_ref()
    }

    /// Whom to ask for OCSP responses, if they are to be fetched and the chain says it.
    pub fn responder(&self) -> Option<Responder> {
        let [certificate, issuer, ..] = &self.key.cert[..] else { return None };
        let (_, certificate) = X509Certificate::from_der(certificate).ok().filter(|_| self.fetches_staple)?;
        Responder::of(&certificate, &X509Certificate::from_der(issuer).ok()?.1)
    }

    /// Takes what its responder has answered, and shows it from when the certificate is put in force.
    ///
    /// # Errors
    /// Those of [`Staple::read`]; nothing is changed then.
    pub fn take_staple(&mut self, der: &[u8]) -> Result<&Staple, String> {
        let parsed = self.key.cert.first().and_then(|first| Some(X509Certificate::from_der(first).ok()?.1));
        let staple = Staple::read(der, parsed.as_ref().map_or(&[], |parsed| parsed.raw_serial()))?;
        Ok(self.staple.insert(staple))
    }

    /// Names the certificate itself: 32 hex digits of a hash of it.
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.key.cert.first().map_or(&[], |first| first));
        hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
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
            fetches_staple: must_staple,
            staple: None,
            not_before,
            not_after,
            key: Arc::new(key),
        })
    }
}

/// Why nothing can be fetched for a certificate.
const NO_RESPONDER: &str = "ocsp is \"fetch\", but its first certificate names no OCSP responder at an http:// URL, or that \
     of its issuer does not follow it";

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

/// A certificate as it is shown.
#[derive(Clone, Debug)]
struct Served {
    key: Arc<CertifiedKey>,
    /// With an OCSP response beside it, and until when.
    stapled: Option<(Arc<CertifiedKey>, Wall)>,
}

impl Served {
    fn of(certificate: &Certificate) -> Self {
        let stapled = certificate.staple.as_ref().map(|staple| {
            let mut key = CertifiedKey::clone(&certificate.key);
            key.ocsp = Some(staple.der.clone());
            (Arc::new(key), staple.next_update)
        });
        Served { key: certificate.key.clone(), stapled }
    }

    fn at(&self, clock: &Clock) -> Arc<CertifiedKey> {
        match &self.stapled {
            Some((key, until)) if clock.wall() < *until => key.clone(),
            _ => self.key.clone(),
        }
    }
}

/// Certificates by the names that they are for.
#[derive(Debug)]
struct ByName {
    /// `www.shop.example`, `*.shop.example`. Of several, those given first are tried first.
    names: HashMap<Box<str>, Vec<Served>>,
    /// For visitors who name no host, which old programs and those that use addresses do not.
    first: Option<Served>,
    /// For authorities that look whose a domain is.
    challenges: HashMap<Box<str>, Arc<CertifiedKey>>,
    clock: Clock,
}

impl ByName {
    fn of(certificates: &[Certificate], challenges: &[Challenge], clock: Clock) -> Self {
        let first = certificates.first().map(Served::of);
        let challenges =
            challenges.iter().map(|one| (one.domain.clone(), one.certificate.0.clone())).collect();
        let mut by_name = ByName { names: HashMap::new(), first, challenges, clock };
        for certificate in certificates {
            let served = Served::of(certificate);
            for name in &certificate.names {
                by_name.names.entry(name.clone()).or_default().push(served.clone());
            }
        }
        by_name
    }

    /// Those for `host`, which is lower case: its own, or those with a `*` for its first label (RFC 9525 §6.3).
    fn find(&self, host: &str) -> &[Served] {
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
        let Some(host) = hello.server_name() else {
            return self.first.as_ref().map(|first| first.at(&self.clock));
        };
        let found = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.find(&host.to_ascii_lowercase()),
            false => self.find(host),
        };
        let is_usable = |served: &&Served| served.key.key.choose_scheme(hello.signature_schemes()).is_some();
        found.iter().find(is_usable).map(|served| served.at(&self.clock))
    }
}

/// Whether nothing but the look for a challenge is offered (RFC 8737 §3).
fn is_from_authority(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_PROTOCOL) && offered.next().is_none())
}

/// What handshakes need that outlives a change of certificates.
#[derive(Clone)]
pub(crate) struct TlsBase {
    provider: Arc<CryptoProvider>,
    tickets: Arc<Tickets>,
    /// Used instead of tickets where early data is taken.
    sessions: Arc<Sessions>,
    clock: Clock,
}

impl TlsBase {
    /// `ticket_secret`: what session tickets are made from.
    pub(crate) fn new(ticket_secret: &[u8], clock: Clock) -> Result<Self, rustls::Error> {
        let mut provider = aws_lc_rs::default_provider();
        // SHA-256 has instructions of its own where SHA-384 has none: a handshake costs a fifth less (bench/tls.sh).
        let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        let tickets = Arc::new(Tickets::new(ticket_secret, clock.clone())?);
        Ok(TlsBase { provider: Arc::new(provider), tickets, sessions: Arc::default(), clock })
    }
}

/// What the configuration says of handshakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered {
    min_version: TlsVersion,
    http2: bool,
    early_data: bool,
}

impl Offered {
    pub(crate) fn by(snapshot: &Snapshot) -> Self {
        let tls = &snapshot.edge.tls;
        Offered { min_version: tls.min_version, http2: snapshot.switches.http2, early_data: tls.early_data }
    }
}

/// The edge's clock, as the library asks for the time.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = u64::try_from(self.0.wall().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(since)))
    }
}

/// What TLS is spoken over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Tcp,
    /// TLS 1.3 alone.
    Quic,
}

/// TLS as it is in force.
pub(crate) struct Tls {
    base: TlsBase,
    offered: Offered,
    certificates: Arc<ByName>,
    /// For all handshakes while no site asks for visitors' certificates.
    tcp: Arc<ServerConfig>,
    quic: Arc<QuicServerConfig>,
    /// Answers to HTTP-01, by token.
    answers: HashMap<Box<str>, Box<str>>,
}

/// What one handshake goes by; and what says afterwards what the visitor has shown, if anybody asks for that.
pub(crate) type ForHandshake<C> = (Arc<C>, Option<Arc<Asking>>);

impl Tls {
    /// With these certificates; without any, every handshake is refused. `challenges` are answered too.
    pub(crate) fn new(
        base: &TlsBase,
        offered: Offered,
        certificates: &[Certificate],
        challenges: &[Challenge],
    ) -> Result<Self, rustls::Error> {
        let certificates = Arc::new(ByName::of(certificates, challenges, base.clock.clone()));
        let config = |carrier| {
            let deciders = Deciders {
                verifier: WebPkiClientVerifier::no_client_auth(),
                resolver: certificates.clone(),
                tickets: base.tickets.clone(),
            };
            server_config(base, carrier, offered, &certificates, deciders)
        };
        let answers = challenges.iter().map(|one| (one.token.clone(), one.key_authorization.clone()));
        Ok(Tls {
            tcp: Arc::new(config(Carrier::Tcp)?),
            quic: Arc::new(for_quic(config(Carrier::Quic)?)?),
            base: base.clone(),
            offered,
            answers: answers.collect(),
            certificates,
        })
    }

    /// Whether a visitor who returns may ask before its handshake is over.
    pub(crate) fn takes_early_data(&self) -> bool {
        self.offered.early_data
    }

    /// For a handshake over TCP that begins now.
    ///
    /// # Errors
    /// Those of the library, which [`Tls::new`] would have met.
    pub(crate) fn tcp(&self, loaded: &Arc<Loaded>) -> Result<ForHandshake<ServerConfig>, rustls::Error> {
        if !loaded.asks_for_certificates() {
            return Ok((self.tcp.clone(), None));
        }
        let (config, asking) = self.asking(Carrier::Tcp, loaded)?;
        Ok((Arc::new(config), Some(asking)))
    }

    /// For a handshake over QUIC that begins now; errors as with [`Tls::tcp`].
    pub(crate) fn quic(&self, loaded: &Arc<Loaded>) -> Result<ForHandshake<QuicServerConfig>, rustls::Error> {
        if !loaded.asks_for_certificates() {
            return Ok((self.quic.clone(), None));
        }
        let (config, asking) = self.asking(Carrier::Quic, loaded)?;
        Ok((Arc::new(for_quic(config)?), Some(asking)))
    }

    fn asking(
        &self,
        carrier: Carrier,
        loaded: &Arc<Loaded>,
    ) -> Result<(ServerConfig, Arc<Asking>), rustls::Error> {
        let asking = Asking::new(&self.base, self.certificates.clone(), loaded.clone());
        let deciders =
            Deciders { verifier: asking.clone(), resolver: asking.clone(), tickets: asking.clone() };
        // What a visitor shows is known when the handshake is over.
        let offered = Offered { early_data: false, ..self.offered };
        let config = server_config(&self.base, carrier, offered, &self.certificates, deciders)?;
        Ok((config, asking))
    }

    /// What is answered to an authority that asks for `token` by HTTP-01; `None` when nobody asked for that.
    pub(crate) fn key_authorization(&self, token: &str) -> Option<&str> {
        self.answers.get(token).map(|answer| &**answer)
    }
}

/// Bytes that a visitor may send over TCP before its handshake is over: a few requests. The rest waits.
const EARLY_DATA_BYTES: u32 = 16 * 1024;

/// What decides within a handshake.
struct Deciders {
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
    tickets: Arc<dyn ProducesTickets>,
}

fn server_config(
    base: &TlsBase,
    carrier: Carrier,
    offered: Offered,
    certificates: &ByName,
    deciders: Deciders,
) -> Result<ServerConfig, rustls::Error> {
    let time = Arc::new(Time(base.clock.clone()));
    let mut config = ServerConfig::builder_with_details(base.provider.clone(), time)
        .with_protocol_versions(match (carrier, offered.min_version) {
            (Carrier::Tcp, TlsVersion::Tls12) => rustls::ALL_VERSIONS,
            (Carrier::Tcp, TlsVersion::Tls13) | (Carrier::Quic, _) => TLS13_ALONE,
        })?
        .with_client_cert_verifier(deciders.verifier)
        .with_cert_resolver(deciders.resolver);
    match offered.early_data {
        // Sessions live in tickets alone: a visitor who never returns costs no memory.
        false => {
            config.ticketer = deciders.tickets;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        // The library takes early data only for sessions that are used up by being resumed, so that none is replayed.
        true => {
            config.session_storage = base.sessions.clone();
            config.max_early_data_size = match carrier {
                Carrier::Tcp => EARLY_DATA_BYTES,
                // RFC 9001 §4.6.1: the one value that there is; QUIC's own windows bound it.
                Carrier::Quic => u32::MAX,
            };
            // An answer to early data does not wait for the visitor's part of the handshake.
            config.send_half_rtt_data = true;
        }
    }
    match carrier {
        Carrier::Tcp => {
            let spoken = PROTOCOLS.iter().filter(|name| offered.http2 || **name != HTTP2);
            config.alpn_protocols = spoken.map(|name| name.to_vec()).collect();
            if !certificates.challenges.is_empty() {
                config.alpn_protocols.push(ACME_PROTOCOL.to_vec());
            }
            config.ignore_client_order = true;
        }
        Carrier::Quic => config.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()],
    }
    Ok(config)
}

fn for_quic(config: ServerConfig) -> Result<QuicServerConfig, rustls::Error> {
    QuicServerConfig::try_from(config)
        .map_err(|_| rustls::Error::General("the cipher that QUIC begins with is missing".to_owned()))
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
        Some(rustls::Error::InvalidCertificate(_)) => Handshake::ClientCertificate,
        Some(_) => Handshake::Malformed,
    }
}

/// How one of QUIC that did not is, by the alert that it was ended with.
pub(crate) fn failed_by(alert: u8) -> Handshake {
    use AlertDescription as Alert;
    match Alert::from(alert) {
        // There is none of its own: see [`failed`].
        Alert::AccessDenied => Handshake::NoCertificate,
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::NoApplicationProtocol => {
            Handshake::NothingInCommon
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA => Handshake::ClientCertificate,
        _ => Handshake::Malformed,
    }
}

// --- Files ---

/// A file that a configuration names and that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadFile {
    /// The file, as the configuration names it.
    pub path: PathBuf,
    /// What is wrong with it, and what was wanted.
    pub what: String,
    /// Whether this user may not read it: another one may find it good.
    pub is_forbidden: bool,
}

impl BadFile {
    fn new(path: &Path, what: impl Display) -> Self {
        BadFile { path: path.to_owned(), what: what.to_string(), is_forbidden: false }
    }

    /// One that could not be read.
    pub fn unreadable(path: &Path, error: &io::Error) -> Self {
        let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        BadFile { is_forbidden, ..BadFile::new(path, error) }
    }
}

impl Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, BadFile> {
    std::fs::read(path).map_err(|error| BadFile::unreadable(path, &error))
}

/// The certificates of a configuration, in its order; or everything that is wrong with them.
pub fn read_certificates(files: &[CertificateFiles]) -> Result<Vec<Certificate>, Vec<BadFile>> {
    let (read, wrong): (Vec<_>, Vec<_>) = files.iter().map(Certificate::read).partition(Result::is_ok);
    let wrong: Vec<BadFile> = wrong.into_iter().filter_map(Result::err).flatten().collect();
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
        let by_name = ByName::of(&many, &[], Clock::system());
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
        assert!(!certificate(&["a.example"], Vec::new()).lacks_staple(Wall(0)));
        assert!(!certificate(&["a.example"], vec![features(&[17])]).lacks_staple(Wall(0)));
        assert!(certificate(&["a.example"], vec![features(&[17, 5])]).lacks_staple(Wall(0)));
    }
}
