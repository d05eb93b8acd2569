//! How a node comes by its certificate, and keeps it: the key is made here and never leaves; control signs a request for it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use journal::feed::Dialer;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Deserialize;
use serde_json::json;
use trust::{EnrolmentToken, Identity, Role, fingerprint};

use super::keep::Keep;
use super::{Who, chance_below, sleep_ms};
use crate::failure::Failure;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A node that is not let in tries again after a time between 0 and this, drawn evenly: a control that is being started is
/// there within seconds.
const RETRY_WITHIN: Duration = Duration::from_secs(5);

/// The key until there is a certificate for it: an answer that got lost must not cost another key.
const NEW_KEY: &str = "key.new.pem";

/// What control answers.
#[derive(Deserialize)]
struct Joined {
    certificate: String,
    authority: String,
    /// Where the token lets the node stand.
    #[serde(default)]
    pop: Option<String>,
}

/// An error as control answers it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: String,
    found: Option<String>,
    next: Option<String>,
}

/// Joins the cluster that `token` is for, as `who`. Tries for as long as no control can be reached.
///
/// # Errors
/// Control refuses, the token is for another role, name or PoP, or the answer is of no use.
pub(crate) async fn enroll(keep: &Keep, token: &EnrolmentToken, who: &Who) -> Result<Identity, Failure> {
    let Who { role, name, pop, .. } = who;
    let mut controls = who.controls.clone();
    for url in &token.controls {
        if !controls.contains(url) {
            controls.push(url.clone());
        }
    }
    let path = keep.path().join(NEW_KEY);
    let key = new_key(&path)?;
    let wanted = json!({
        "id": token.id, "secret": token.secret, "role": role, "name": name,
        "pop": (*role == Role::Edge).then_some(pop), "request": request_for(&key)?,
    });
    let dialer = Dialer::pinned(controls, token.authority.clone());
    loop {
        let json = Bytes::from(wanted.to_string());
        let asked = dialer.ask(Method::POST, "/v1/enroll", Some(json), ANSWER_BYTES_MAX).await;
        let why = match asked {
            Ok((status, body)) if status.is_success() => {
                let joined: Joined = serde_json::from_slice(&body)
                    .map_err(|error| Failure::new(format!("control's answer cannot be read: {error}"), ""))?;
                // An older control lets a node of another role, name or PoP join all the same.
                let identity = checked(&joined, &key, (*role, name), &token.authority)
                    .map_err(|why| Failure::new(why, "ask the operator of the cluster"))?;
                // It would roll out to the one PoP, and the node take what is for the other.
                let stands = joined.pop.as_deref().filter(|stands| *role == Role::Edge && stands != pop);
                if let Some(stands) = stands {
                    return Err(Failure::new(
                        format!("the token is for PoP {stands:?}, and this node's file says pop = {pop:?}"),
                        format!(
                            "write pop = {stands:?} in [cluster]; or perigee nodes retire {name}, and have a token made for the other PoP"
                        ),
                    ));
                }
                Identity::save(
                    keep.path(),
                    &joined.authority,
                    &joined.certificate,
                    Some(&key.serialize_pem()),
                )
                .map_err(|error| {
                    Failure::new(format!("{}: cannot be written: {error}", keep.path().display()), "")
                })?;
                // It is under its real name now.
                let _ = fs::remove_file(&path);
                return Ok(identity);
            }
            Ok((status, body)) if is_final(status) => {
                let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
                let found = problem.found.map_or(String::new(), |found| format!(" ({found})"));
                return Err(Failure::new(
                    format!("control does not let this node join: {}{found}", problem.error),
                    problem.next.unwrap_or_default(),
                ));
            }
            Ok((status, body)) => format!("control answered {status}: {}", String::from_utf8_lossy(&body)),
            Err(why) => why,
        };
        eprintln!("perigee: this node has not joined yet: {why}; trying again");
        sleep_ms(chance_below(RETRY_WITHIN.as_millis() as u64)).await;
    }
}

/// A new certificate for the same key.
///
/// # Errors
/// No control that can be reached gives one: why.
pub(crate) async fn renew(keep: &Keep, dialer: &Dialer, identity: &Identity) -> Result<Identity, String> {
    let key = KeyPair::from_pkcs8_der_and_sign_algo(identity.key(), &PKCS_ECDSA_P256_SHA256)
        .map_err(|error| format!("the key cannot be used: {error}"))?;
    let request = request_for(&key).map_err(|failure| failure.to_string())?;
    let json = Bytes::from(json!({ "request": request }).to_string());
    let (status, body) = dialer.ask(Method::POST, "/v1/renew", Some(json), ANSWER_BYTES_MAX).await?;
    if !status.is_success() {
        return Err(format!("control answered {status}: {}", String::from_utf8_lossy(&body)));
    }
    let joined: Joined = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let renewed = checked(
        &joined,
        &key,
        (identity.peer().role, &identity.peer().name),
        &fingerprint(identity.authority()),
    )?;
    Identity::save(keep.path(), &joined.authority, &joined.certificate, None)
        .map_err(|error| format!("{}: cannot be written: {error}", keep.path().display()))?;
    Ok(renewed)
}

/// Whether the same answer would come again.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        && status != StatusCode::REQUEST_TIMEOUT
}

/// What was issued, if it is for this node, of its key, and by the authority that it believes.
fn checked(
    joined: &Joined,
    key: &KeyPair,
    (role, name): (Role, &str),
    authority: &str,
) -> Result<Identity, String> {
    let identity = Identity::from_pem(&joined.authority, &joined.certificate, &key.serialize_pem())?;
    let peer = identity.peer();
    if fingerprint(identity.authority()) != authority {
        return Err("the certificate is of another authority than the one that this node believes".to_owned());
    }
    if peer.name != name || peer.role != role {
        return Err(format!(
            "the certificate is for {} {:?}; wanted {} {name:?}: the token and this node's file are for different ones",
            peer.role.as_str(),
            peer.name,
            role.as_str()
        ));
    }
    if peer.public_key != key.public_key_raw() {
        return Err("the certificate is for another key than this node's".to_owned());
    }
    Ok(identity)
}

fn request_for(key: &KeyPair) -> Result<String, Failure> {
    let made = CertificateParams::default().serialize_request(key).and_then(|request| request.pem());
    made.map_err(|error| Failure::new(format!("no certificate request can be made: {error}"), ""))
}

/// The key that was made before, or a new one.
fn new_key(path: &Path) -> Result<KeyPair, Failure> {
    let unusable =
        |what: String| Failure::new(format!("{}: {what}", path.display()), "remove it and start again");
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| unusable(format!("is no key: {error}"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                .map_err(|error| Failure::new(format!("no key can be made: {error}"), ""))?;
            trust::write_new(path, key.serialize_pem().as_bytes())
                .map_err(|error| unusable(format!("cannot be written: {error}")))?;
            Ok(key)
        }
        Err(error) => Err(unusable(format!("cannot be read: {error}"))),
    }
}
