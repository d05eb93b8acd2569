use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::testing::Authority;

/// Whom the server has seen, and whether the client believed the server: one byte each way.
async fn meet(client: Arc<rustls::ClientConfig>, server: &Identity) -> Option<Option<Peer>> {
    let (ours, theirs) = duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(server.server_config().unwrap());
    let accept = async move {
        let mut stream = acceptor.accept(theirs).await.ok()?;
        let seen = stream.get_ref().1.peer_certificates().map(|chain| Peer::of(&chain[0]).unwrap());
        stream.write_all(b"x").await.ok()?;
        stream.shutdown().await.ok()?;
        Some(seen)
    };
    let connect = async move {
        let name = ServerName::try_from("192.0.2.1").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, ours).await.ok()?;
        stream.read_u8().await.ok()
    };
    let (seen, read) = tokio::join!(accept, connect);
    read.and(seen)
}

#[tokio::test]
async fn nodes_and_controls_know_each_other_by_their_authority_and_role() {
    let (cluster, other) = (Authority::new("one"), Authority::new("two"));
    let control = cluster.identity(Role::Control, "c1", 7);
    let edge = cluster.identity(Role::Edge, "fra-1", 7);
    let dial = |from: &Identity| from.client_config(b"h2").unwrap();
    let seen = meet(dial(&edge), &control).await.flatten().unwrap();
    assert_eq!((seen.name.as_str(), seen.role), ("fra-1", Role::Edge));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!(!seen.is_expired(now));

    // An edge is no server of the feed, and another cluster's control is a stranger; so is another's node.
    assert_eq!(meet(dial(&edge), &edge).await, None);
    assert_eq!(meet(dial(&edge), &other.identity(Role::Control, "c1", 7)).await, None);
    assert_eq!(meet(dial(&other.identity(Role::Edge, "fra-1", 7)), &control).await, None);
    assert_eq!(
        meet(dial(&edge), &cluster.identity(Role::Control, "c1", -1)).await,
        None,
        "one that has run out"
    );

    // One who has no certificate is let in without a name, if it knows the authority's fingerprint.
    let pinned = |to: &Identity| pinned_client_config(&fingerprint(to.authority()), &[b"h2"]).unwrap();
    assert_eq!(meet(pinned(&control), &control).await, Some(None));
    assert_eq!(meet(pinned(&other.identity(Role::Control, "c1", 7)), &control).await, None);
}

#[tokio::test]
async fn a_handshake_that_fails_for_its_time_is_told_from_others() {
    let (cluster, other) = (Authority::new("one"), Authority::new("two"));
    let refused = async |control: Identity| {
        let (ours, theirs) = duplex(64 * 1024);
        let edge = cluster.identity(Role::Edge, "fra-1", 7);
        let name = ServerName::try_from("192.0.2.1").unwrap();
        let connect = TlsConnector::from(edge.client_config(b"h2").unwrap()).connect(name, ours);
        let accept = TlsAcceptor::from(control.server_config().unwrap()).accept(theirs);
        untimely(&tokio::join!(accept, connect).1.err().unwrap())
    };
    let next = refused(cluster.identity(Role::Control, "c1", -1)).await;
    assert!(next.unwrap().starts_with("compare the clocks"));
    assert_eq!(refused(other.identity(Role::Control, "c1", 7)).await, None);
}

#[tokio::test]
async fn a_certificate_that_has_run_out_is_known_for_a_while() {
    let cluster = Authority::new("one");
    let control = cluster.identity(Role::Control, "c1", 7);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    for (days, is_known) in [(-1, true), (-89, true), (-92, false)] {
        let config = cluster.identity(Role::Edge, "fra-1", days).client_config(b"h2").unwrap();
        let seen = meet(config, &control).await.flatten();
        assert_eq!(seen.is_some(), is_known, "{days}");
        assert!(seen.is_none_or(|seen| seen.is_expired(now)));
    }
}

#[test]
fn what_is_signed_is_believed_from_whoever_has_the_key() {
    let cluster = Authority::new("one");
    let edge = cluster.identity(Role::Edge, "fra-1", 7);
    let signature = edge.sign("position 7");
    assert!(verify(&edge.peer().public_key, "position 7", &signature));
    assert!(!verify(&edge.peer().public_key, "position 8", &signature));
    assert!(!verify(&edge.peer().public_key, "position 7", "AAAA"));
    assert!(!edge.is_by_authority("position 7", &signature), "the node is not its authority");
    let key = cluster.issuer.key().serialize_der();
    let authority = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key).unwrap();
    assert!(edge.is_by_authority("version 3", &sign(&authority, "version 3")));
}

#[test]
fn an_identity_is_loaded_as_it_was_saved() {
    let cluster = Authority::new("one");
    let directory = std::env::temp_dir().join(format!("perigee-identity-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    assert!(Identity::load(&directory).unwrap().is_none());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = ["perigee://edge/fra-1", &Peer::pop_uri("fra")]
        .map(|uri| SanType::URI(uri.try_into().unwrap()))
        .to_vec();
    let certificate = params.signed_by(&key, &cluster.issuer).unwrap().pem();
    Identity::save(&directory, &cluster.pem, &certificate, Some(&key.serialize_pem())).unwrap();
    let loaded = Identity::load(&directory).unwrap().unwrap();
    assert_eq!((&*loaded.peer().name, loaded.peer().pop.as_deref()), ("fra-1", Some("fra")));
    fs::write(directory.join(CERTIFICATE_FILE), "nothing").unwrap();
    let error = Identity::load(&directory).unwrap_err();
    assert!(error.contains("the certificate is no certificate in PEM"), "{error}");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_token_is_one_line_and_read_whole_or_not_at_all() {
    let token = EnrolmentToken {
        controls: vec!["https://192.0.2.7:7700".into()],
        authority: "ab".repeat(32),
        id: "t1".into(),
        secret: "s".into(),
    };
    let text = token.to_string();
    assert_eq!(format!("{text}\n").parse::<EnrolmentToken>().unwrap(), token);
    for wrong in ["", "perigee-join.", "x", &text[..text.len() - 5]] {
        assert!(wrong.parse::<EnrolmentToken>().is_err(), "{wrong}");
    }
}

#[test]
fn names_are_of_letters_that_stand_anywhere() {
    for good in ["fra-1", "a", "edge_2.example"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "-a", ".a", "a/b", "ä", "a b", &"a".repeat(65)] {
        assert!(!is_name(bad), "{bad}");
    }
}

#[test]
fn a_certificate_names_an_edge_by_uri_or_else_by_dns() {
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    for (names, wanted) in [
        (vec![dns("fra-1")], vec!["fra-1"]),
        (vec![uri("perigee://edge/fra-1")], vec!["fra-1"]),
        (vec![uri("perigee://edge/fra-1"), uri("perigee://pop/fra")], vec!["fra-1"]),
        (vec![dns("fra-2"), uri("perigee://edge/fra-1")], vec!["fra-1"]),
        (vec![dns("fra-1"), uri("perigee://control/c1")], vec![]),
        (vec![dns("fra-1"), uri("perigee://router/fra-1")], vec![]),
        (vec![uri("https://fra-1.example/")], vec![]),
        (vec![], vec![]),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names.clone_from(&names);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(edge_names(certificate.der()), wanted, "{names:?}");
    }
}
