//! Who is who in a cluster: certificates of its own authority, signatures, and the token by which a node joins. And how what nobody
//! else may read is written to a file, and which authorities of the public are believed outside of a cluster.
//!
//! ```text
//! cluster authority (P-256, self-signed; its key is with control alone)
//!   ├── perigee://control/c1      serves the API and the feed
//!   ├── perigee://relay/eu-1      follows a control, serves the feed
//!   └── perigee://edge/fra-1      follows; its key signs receipts
//! ```
//!
//! Name and role stand in the certificate as a URI (RFC 5280 §4.2.1.6), and the PoP of an edge as another: `perigee://pop/fra`. A server is believed by authority and role and not by its
//! DNS name, so that nodes may dial addresses, tunnels and balancers. A certificate that has run out within
//! [`GRACE`] is still told apart from a stranger's: it is good for renewing it and nothing else, so that a cluster whose control
//! was away for weeks need not be enrolled anew.

mod files;
mod public;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

pub use files::{beside, make_private_directory, write_new, write_private};
pub use public::{public_client, public_roots};

/// How names of nodes begin in a certificate of a cluster.
const URI: &str = "perigee://";
/// What stands in the place of a role where a PoP is named.
const POP: &str = "pop";

/// How long after its end a certificate may still be renewed.
pub const GRACE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It has the journal and the API.
    Control,
    /// It passes the feed on.
    Relay,
    /// It caches and serves.
    Edge,
    /// It says which edge is closest.
    Router,
}

impl Role {
    const ALL: [Role; 4] = [Role::Control, Role::Relay, Role::Edge, Role::Router];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Relay => "relay",
            Role::Edge => "edge",
            Role::Router => "router",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| format!("{text:?} is no role; wanted control, relay, edge or router"))
    }
}

/// Who is at the other end of a connection, as a certificate of the cluster says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The PoP that it has joined in; `None` of what stands in none, and in certificates of older controls.
    pub pop: Option<String>,
    /// Its public key, a point of P-256: [`verify`].
    pub public_key: Vec<u8>,
    /// When its certificate begins and ends, in seconds since 1970.
    pub valid: (i64, i64),
}

impl Peer {
    /// Reads name, role and PoP. Believes the certificate: TLS has verified it.
    ///
    /// # Errors
    /// It is none of a cluster's.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Peer, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let (uris, _) = names_of(&parsed);
        let named = || uris.iter().filter_map(|uri| uri.strip_prefix(URI)?.split_once('/'));
        let (role, name) = named()
            .find_map(|(role, name)| Some((role.parse().ok()?, name.to_owned())))
            .ok_or("the certificate names no node (a URI such as perigee://edge/fra-1)")?;
        Ok(Peer {
            name,
            role,
            pop: named().find_map(|(what, name)| (what == POP).then(|| name.to_owned())),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            valid: (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()),
        })
    }

    /// The URI that names it in a certificate.
    pub fn uri(role: Role, name: &str) -> String {
        format!("{URI}{}/{name}", role.as_str())
    }

    /// The URI that says in a certificate which PoP it has joined in. Readers that know of none take it for no role, and pass it over.
    pub fn pop_uri(pop: &str) -> String {
        format!("{URI}{POP}/{pop}")
    }

    /// Whether its certificate has run out: then it may renew it and nothing else.
    pub fn is_expired(&self, now_secs: i64) -> bool {
        now_secs > self.valid.1
    }
}

/// The names of the edge that a certificate is of: those of its URIs, as a cluster's authority writes them, or else its DNS names.
/// None if it is of no edge, as one with a URI of another role.
pub fn edge_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let (uris, dns) = names_of(&parsed);
    let mut of_cluster = uris.iter().filter_map(|uri| uri.strip_prefix(URI)).peekable();
    match of_cluster.peek() {
        None => dns.into_iter().map(str::to_owned).collect(),
        Some(_) => of_cluster.filter_map(|uri| uri.strip_prefix("edge/")).map(str::to_owned).collect(),
    }
}

/// The URIs and the DNS names of a certificate.
fn names_of<'a>(parsed: &'a X509Certificate<'_>) -> (Vec<&'a str>, Vec<&'a str>) {
    let extension = parsed.subject_alternative_name().ok().flatten();
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for name in extension.into_iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns.push(*name),
            _ => {}
        }
    }
    (uris, dns)
}

/// Whether a name of a node is one: it stands in URIs, file names, logs and metrics.
pub fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed) && !name.starts_with(['.', '-'])
}

// --- Identity ---

/// A node's certificate and key, and the authority that it believes.
pub struct Identity {
    authority: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    signer: EcdsaKeyPair,
    peer: Peer,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {} {}", self.peer.role.as_str(), self.peer.name)
    }
}

const AUTHORITY_FILE: &str = "authority.pem";
const CERTIFICATE_FILE: &str = "certificate.pem";
const KEY_FILE: &str = "key.pem";

impl Identity {
    /// From PEM texts.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Identity, String> {
        let read = |what: &str, pem: &str| {
            CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|error| format!("{what} is no certificate in PEM: {error}"))
        };
        let (authority, certificate) =
            (read("the authority", authority)?, read("the certificate", certificate)?);
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| format!("the key is none in PEM (PKCS #8): {error}"))?;
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der())
            .map_err(|error| format!("the key is none of P-256: {error}"))?;
        let peer = Peer::of(&certificate)?;
        Ok(Identity { authority, certificate, key, signer, peer })
    }

    /// From a directory; `None` when there is none in it yet.
    ///
    /// # Errors
    /// A file that cannot be read, or not be used.
    pub fn load(directory: &Path) -> Result<Option<Identity>, String> {
        let read = |name: &str| {
            let path = directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
            }
        };
        let texts = (read(AUTHORITY_FILE)?, read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
        let (Some(authority), Some(certificate), Some(key)) = texts else { return Ok(None) };
        Identity::from_pem(&authority, &certificate, &key)
            .map(Some)
            .map_err(|error| format!("{}: {error}", directory.display()))
    }

    /// Writes what has come by enrolling or renewing. Readers see the old identity or the new one: the certificate comes
    /// last, and a new one fits the old key unless both are new.
    ///
    /// # Errors
    /// Of the file system.
    pub fn save(directory: &Path, authority: &str, certificate: &str, key: Option<&str>) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        if let Some(key) = key {
            write_private(&directory.join(KEY_FILE), key.as_bytes())?;
        }
        write_private(&directory.join(AUTHORITY_FILE), authority.as_bytes())?;
        write_private(&directory.join(CERTIFICATE_FILE), certificate.as_bytes())
    }

    /// Who this is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The key, as PKCS #8 in DER: for a certificate request of the same key.
    pub fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    /// The node's certificate, and the authority's that it leads to.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone(), self.authority.clone()]
    }

    /// A signature by this node's key, base64.
    pub fn sign(&self, text: &str) -> String {
        sign(&self.signer, text)
    }

    /// Whether the cluster's authority has signed this.
    pub fn is_by_authority(&self, text: &str, signature: &str) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(&self.authority) else { return false };
        verify(&parsed.public_key().subject_public_key.data, text, signature)
    }

    /// TLS 1.3 towards servers of the cluster: controls and relays.
    ///
    /// # Errors
    /// Of the TLS library.
    pub fn client_config(&self, alpn: &[u8]) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
        let roots = roots(&self.authority)?;
        let chain = self.chain();
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let judge = move |server: &Presented<'_>| {
            server.verify(&roots)?;
            has_role(server, &[Role::Control, Role::Relay])
        };
        let mut config = client(judge)?.with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS 1.3 for a control or relay. Clients may show a certificate: [`Peer::of`] it, if there is one.
    ///
    /// # Errors
    /// Of the TLS library.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
        let crypto = Arc::new(provider::default_provider());
        let roots = Arc::new(roots(&self.authority)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let chain = self.chain();
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut config = rustls::ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Lenient(verifier)))
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A signature by a key of P-256, base64.
pub fn sign(key: &EcdsaKeyPair, text: &str) -> String {
    let signature = key.sign(&SystemRandom::new(), text.as_bytes());
    signature.map(|signature| BASE64_STANDARD.encode(signature)).unwrap_or_default()
}

/// Whether whoever has this public key has signed the text.
pub fn verify(public_key: &[u8], text: &str, signature: &str) -> bool {
    let Ok(signature) = BASE64_STANDARD.decode(signature) else { return false };
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key).verify(text.as_bytes(), &signature).is_ok()
}

/// SHA-256 of a certificate, in hex: what tokens and profiles pin an authority by.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(digest(&SHA256, certificate).as_ref())
}

/// SHA-256 of a text, in hex: what a configuration is known and fetched by.
pub fn text_hash(text: &[u8]) -> String {
    hex(digest(&SHA256, text).as_ref())
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// TLS 1.3 towards a control of which only the authority's [`fingerprint`] is known: for enrolling, and for operators.
///
/// # Errors
/// Of the TLS library.
pub fn pinned_client_config(
    fingerprint: &str,
    alpn: &[&[u8]],
) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let wanted = fingerprint.to_ascii_lowercase();
    let judge = move |server: &Presented<'_>| {
        let authority = server.others.iter().find(|other| self::fingerprint(other) == wanted);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        server.verify(&roots(&authority.clone().into_owned())?)?;
        // A relay passes on what nodes follow. Secrets are shown to nobody but a control.
        has_role(server, &[Role::Control])
    };
    let mut config = client(judge)?.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    Ok(Arc::new(config))
}

/// What to do about a handshake that failed with this error because the other side's certificate is not good yet, or not any
/// more: controls have theirs renewed long before, so that it is one of the two clocks. `None` of other failures.
pub fn untimely(error: &io::Error) -> Option<&'static str> {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else { return None };
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
        .then_some("compare the clocks: `date` here, and where control runs")
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

fn client(
    judge: impl Fn(&Presented<'_>) -> Result<(), rustls::Error> + Send + Sync + 'static,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    Ok(rustls::ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(server_verifier(judge)))
}

/// Whether a server is one of these.
fn has_role(server: &Presented<'_>, roles: &[Role]) -> Result<(), rustls::Error> {
    match Peer::of(server.certificate) {
        Ok(peer) if roles.contains(&peer.role) => Ok(()),
        _ => Err(CertificateError::NotValidForName.into()),
    }
}

// --- Verifiers ---

/// What a server shows in a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its own certificate.
    pub certificate: &'a CertificateDer<'a>,
    /// Those that came with it.
    pub others: &'a [CertificateDer<'a>],
    /// An OCSP response; empty without one.
    pub staple: &'a [u8],
    now: UnixTime,
}

impl Presented<'_> {
    /// Whether the certificate is good now, by one of these authorities; of its names nothing is said.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, roots: &RootCertStore) -> Result<(), rustls::Error> {
        let parsed = rustls::server::ParsedCertificate::try_from(self.certificate)?;
        let algorithms = provider::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, self.others, self.now, algorithms)
    }
}

/// Believes a server whom `judge` believes, whatever name it was dialled by. That it has the key of the certificate that it shows
/// is verified in any case.
pub fn server_verifier(
    judge: impl Fn(&Presented<'_>) -> Result<(), rustls::Error> + Send + Sync + 'static,
) -> Arc<dyn ServerCertVerifier> {
    let algorithms = provider::default_provider().signature_verification_algorithms;
    Arc::new(Judging { judge, algorithms })
}

struct Judging<F> {
    judge: F,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<F> fmt::Debug for Judging<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judging")
    }
}

impl<F> ServerCertVerifier for Judging<F>
where
    F: Fn(&Presented<'_>) -> Result<(), rustls::Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.judge)(&Presented { certificate, others, staple, now })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Believes a client's certificate for [`GRACE`] after its end: what it is good for then, [`Peer::is_expired`] decides.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let end = Peer::of(certificate).map_err(|_| CertificateError::BadEncoding)?.valid.1.max(0) as u64;
        let is_within_grace = now.as_secs() > end && now.as_secs() - end <= GRACE.as_secs();
        let at = if is_within_grace { UnixTime::since_unix_epoch(Duration::from_secs(end)) } else { now };
        self.0.verify_client_cert(certificate, others, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

// --- Enrolment ---

/// What a new node is given by its operator: where control is, how to tell it from an impostor, and a secret to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentToken {
    /// URLs of controls or relays: `https://control-1.example:7700`.
    pub controls: Vec<String>,
    /// The authority's [`fingerprint`].
    pub authority: String,
    /// Which token it is.
    pub id: String,
    /// What proves it.
    pub secret: String,
}

const TOKEN_PREFIX: &str = "perigee-join.";

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{TOKEN_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for EnrolmentToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "this is no enrolment token; wanted one line that begins with \"perigee-join.\", whole, as \
                     `perigee enroll` has printed it";
        let coded = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(wrong)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(coded).map_err(|_| wrong)?;
        serde_json::from_slice(&json).map_err(|_| wrong.to_owned())
    }
}

#[cfg(test)]
mod tests;
