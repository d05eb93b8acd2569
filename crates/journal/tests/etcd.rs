//! What only etcd's engine can meet: lost answers, silent connections, TLS and roles, foreign hands on its keys, a full quota.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "support/members.rs"]
mod members;
#[path = "support/relay.rs"]
mod relay;
#[path = "support/scratch.rs"]
mod scratch;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use journal::etcd::{Etcd, Settings};
use journal::{Chance, Commit, Error, Journal, Mark, Record, TEXT_BYTES_MAX};
use members::{Members, PATIENCE, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use relay::Relay;
use scratch::{Scratch, chance};

fn record(text: &str) -> Commit {
    Commit { record: Some(text.to_owned()), ..Commit::default() }
}

fn write(name: &str, value: &[u8]) -> Commit {
    Commit { cells: vec![(name.to_owned(), Some(value.to_vec()))], ..Commit::default() }
}

async fn open(settings: &Settings) -> Etcd {
    Etcd::open(settings, &chance()).await.unwrap()
}

/// What it says instead of opening.
async fn refusal(settings: &Settings) -> Error {
    match Etcd::open(settings, &chance()).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

fn broken<T>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Broken(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it worked"),
    }
}

async fn texts(journal: &Etcd) -> Vec<String> {
    texts_after(journal, 0).await
}

async fn texts_after(journal: &Etcd, after: u64) -> Vec<String> {
    journal.read(after, 1_000).await.unwrap().records.iter().map(|record| record.text.to_string()).collect()
}

// --- The network ---

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_got_lost_finds_out_that_it_was_written() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let relay = Relay::start(members.all[0].client).await;
    let journal = open(&Settings { endpoints: vec![relay.url()], ..members.settings.clone() }).await;
    let mut wanted = Vec::new();
    for n in 0..20 {
        relay.lose_answers("kv/txn", 1 + n % 2);
        let text = n.to_string();
        let cells = vec![("n".to_owned(), Some(text.clone().into_bytes()))];
        let position = journal.commit(Commit { cells, ..record(&text) }).await.unwrap();
        assert_eq!(position, wanted.len() as u64 + 1);
        wanted.push(text);
        // Also when there is nothing but cells to know it by.
        relay.lose_answers("kv/txn", 1);
        let version = journal.cell("m").await.unwrap().map_or(0, |cell| cell.version);
        relay.lose_answers("kv/txn", 1);
        journal.commit(Commit { expect: vec![("m".into(), version)], ..write("m", b"x") }).await.unwrap();
    }
    assert_eq!(texts(&journal).await, wanted);
    // Of two who know the same one wins, whatever gets lost.
    let other = open(&members.settings).await;
    let version = other.cell("m").await.unwrap().unwrap().version;
    let expect = vec![("m".to_owned(), version)];
    relay.lose_answers("kv/txn", 1);
    journal.commit(Commit { expect: expect.clone(), ..write("m", b"y") }).await.unwrap();
    assert_eq!(other.commit(Commit { expect, ..write("m", b"z") }).await, Err(Error::Conflict("m".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_answer_gets_lost_it_says_that_it_does_not_know() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let relay = Relay::start(members.all[0].client).await;
    let journal = open(&Settings { endpoints: vec![relay.url()], ..members.settings.clone() }).await;
    relay.lose_answers("kv/txn", usize::MAX);
    let outcome = journal.commit(record("perhaps")).await;
    assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
    relay.lose_answers("kv/txn", 0);
    assert_eq!(journal.commit(record("again")).await, Ok(2));
    assert_eq!(texts(&journal).await, ["perhaps", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_is_there_it_says_that_nothing_was_written() {
    let Some(mut members) = Members::start(1, &[]).await else { return };
    let journal = open(&members.settings).await;
    members.kill(0);
    let Err(Error::Unavailable(why)) = journal.read(0, 1).await else { panic!("it read") };
    assert!(why.contains(&members.settings.endpoints[0]) && why.contains("in 10 s"), "{why}");
    // By now no connection is left that something could have gone out on.
    let outcome = journal.commit(record("x")).await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_has_fallen_silent_is_noticed() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let relay = Relay::start(members.all[0].client).await;
    let waits = open(&Settings { endpoints: vec![relay.url()], ..members.settings.clone() }).await;
    let writes = open(&members.settings).await;
    for n in 0..3 {
        let position = writes.commit(record(&n.to_string())).await.unwrap();
        tokio::time::timeout(PATIENCE, waits.changed(position - 1)).await.unwrap().unwrap();
        relay.silence();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_is_brought_records_of_all_writers_and_asks_for_the_rest() {
    const COUNT: usize = 300;
    let Some(members) = Members::start(1, &[]).await else { return };
    let (follows, other) = (open(&members.settings).await, open(&members.settings).await);
    let write = async |writer: &Etcd, from: usize| {
        for n in (from..COUNT).step_by(2) {
            writer.commit(record(&n.to_string())).await.unwrap();
        }
    };
    let follow = async {
        let (mut mark, mut marks, mut texts, mut brought) = (Mark::default(), Vec::new(), Vec::new(), 0);
        while texts.len() < COUNT {
            follows.changed(mark.position).await.unwrap();
            let heard = follows.heard(mark, 100);
            brought += heard.len();
            let records = match heard.is_empty() {
                true => follows.read(mark.position, 100).await.unwrap().records,
                false => heard,
            };
            for record in records {
                assert_eq!(record.position, mark.position + 1);
                mark = mark.then(&record);
                marks.push(mark);
                texts.push(record.text.parse::<usize>().unwrap());
            }
        }
        assert!(follows.heard(mark, 100).is_empty(), "there is no more");
        (marks, texts, brought)
    };
    let ((marks, mut texts, brought), (), ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(follow, write(&follows, 0), write(&other, 1)) })
            .await
            .unwrap();
    assert!(brought > COUNT / 2, "{brought} of {COUNT} were brought");
    let old = marks[COUNT - 10];
    assert_eq!(follows.heard(old, 4).len(), 4);
    assert!(follows.heard(Mark { digest: Mark::default().digest, ..old }, 4).is_empty());
    texts.sort_unstable();
    assert!(texts.into_iter().eq(0..COUNT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_is_left_for_the_next() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let (silent, refusing) =
        (Relay::start(members.all[0].client).await, Relay::start(members.all[0].client).await);
    silent.hold(true);
    refusing.refuse(true);
    let endpoints = vec![silent.url(), refusing.url(), members.settings.endpoints[0].clone()];
    for first in 0..3 {
        let mut endpoints = endpoints.clone();
        endpoints.rotate_left(first);
        let journal = open(&Settings { endpoints, ..members.settings.clone() }).await;
        journal.commit(record("x")).await.unwrap();
    }
    let why = refusal(&Settings { endpoints: endpoints[..2].to_vec(), ..members.settings.clone() })
        .await
        .to_string();
    assert!(
        why.contains(&silent.url()) && why.contains("did not answer in 3 s") && why.contains(&refusing.url()),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_etcd_is_not_believed() {
    let Some(mut right) = Members::start(1, &[]).await else { return };
    let Some(wrong) = Members::start(1, &["--initial-cluster-token", "other"]).await else { return };
    open(&right.settings).await.commit(record("here")).await.unwrap();
    let endpoints = vec![right.settings.endpoints[0].clone(), wrong.settings.endpoints[0].clone()];
    let both = Settings { endpoints, ..right.settings.clone() };
    // With this chance, it begins with the one that knows of no journal, and begins none there.
    let why = broken(Etcd::open(&both, &(Arc::new(|| 1_u128) as Chance)).await);
    assert!(why.contains("belongs to cluster") && why.contains("name it no more"), "{why}");
    assert_eq!(
        wrong.control(&[0], &["get", &wrong.settings.prefix, "--prefix", "--keys-only"]).unwrap().trim(),
        ""
    );

    let journal = Etcd::open(&both, &(Arc::new(|| 0_u128) as Chance)).await.unwrap();
    assert_eq!(texts(&journal).await, ["here"]);
    right.kill(0);
    let why = journal.read(0, 1).await.unwrap_err().to_string();
    assert!(why.contains("belongs to cluster") && why.contains("name it no more"), "{why}");
}

// --- TLS and roles ---

fn authority(scratch: &Scratch) -> Tls {
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(Vec::new()).unwrap();
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = |name: &str, pem: String| -> PathBuf {
        let path = scratch.path(name);
        fs::write(&path, pem).unwrap();
        path
    };
    let ca = file("ca.pem", wanted.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(wanted, key);
    let issue = |name: &str, host: &str| {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new([host.to_owned()]).unwrap();
        if name != "named" {
            wanted.distinguished_name = DistinguishedName::new();
        }
        // etcd's gateway shows the server's certificate when it asks etcd itself.
        wanted.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = wanted.signed_by(&key, &issuer).unwrap();
        (file(&format!("{name}.pem"), certificate.pem()), file(&format!("{name}.key"), key.serialize_pem()))
    };
    issue("named", "control");
    Tls { ca, server: issue("server", "127.0.0.1"), client: issue("client", "control") }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_tls_a_client_certificate_and_a_user() {
    let scratch = Scratch::new();
    let tls = authority(&scratch);
    let Some(mut members) = Members::start_secured(1, &[], Some(&tls)).await else { return };
    let without_user = open(&members.settings).await;
    without_user.commit(record("before")).await.unwrap();

    let other = Scratch::new();
    let nameless = Settings { certificate: None, ..members.settings.clone() };
    let stranger = Settings { ca_file: Some(authority(&other).ca), ..members.settings.clone() };
    let public = Settings { ca_file: None, ..members.settings.clone() };
    let (nameless, stranger, public) = tokio::join!(refusal(&nameless), refusal(&stranger), refusal(&public));
    assert!(matches!(nameless, Error::Unavailable(_)), "{nameless:?}");
    for why in [stranger.to_string(), public.to_string()] {
        assert!(why.contains(&members.settings.endpoints[0]) && why.contains("certificate"), "{why}");
    }
    let why = broken(
        Etcd::open(&Settings { ca_file: Some(tls.client.1.clone()), ..members.settings.clone() }, &chance())
            .await,
    );
    assert!(why.contains("CA file") && why.contains("client.key"), "{why}");

    let user = Some(("perigee".to_owned(), "secret".to_owned()));
    let settings = Settings { user: user.clone(), ..members.settings.clone() };
    for arguments in [
        &["user", "add", "root:root"][..],
        &["role", "add", "perigee"],
        &["role", "grant-permission", "perigee", "--prefix=true", "readwrite", "perigee/test/"],
        &["user", "add", "perigee:secret"],
        &["user", "grant-role", "perigee", "perigee"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        members.control(&[0], arguments).unwrap();
    }
    let why = broken(without_user.commit(record("x")).await);
    assert!(why.contains("set a user"), "{why}");
    let why = broken(
        Etcd::open(&Settings { user: Some(("perigee".into(), "x".into())), ..settings.clone() }, &chance())
            .await,
    );
    assert!(why.contains("correct user or password") && !why.contains("secret"), "{why}");
    let why = broken(Etcd::open(&Settings { prefix: "other".into(), ..settings.clone() }, &chance()).await);
    assert!(why.contains("permission denied") && why.contains("grant-permission"), "{why}");

    let named = (scratch.path("named.pem"), scratch.path("named.key"));
    let why = broken(Etcd::open(&Settings { certificate: Some(named), ..settings.clone() }, &chance()).await);
    assert!(why.contains("without a CommonName"), "{why}");

    let journal = open(&settings).await;
    journal.commit(record("as a user")).await.unwrap();
    // A member forgets the tokens that it gave when it starts again.
    members.kill(0);
    members.launch(0, "new");
    let started = Instant::now();
    loop {
        match journal.commit(record("with a new token")).await {
            Ok(position) => break assert_eq!(position, 3),
            Err(Error::Unavailable(why)) => assert!(started.elapsed() < PATIENCE, "{why}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(texts(&journal).await, ["before", "as a user", "with a new token"]);
    tokio::time::timeout(PATIENCE, journal.changed(2)).await.unwrap().unwrap();
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_what_is_wanted() {
    let settings = |endpoint: &str, prefix: &str| Settings {
        endpoints: vec![endpoint.to_owned()],
        prefix: prefix.to_owned(),
        ca_file: None,
        certificate: None,
        user: None,
    };
    for (endpoint, prefix, says) in [
        ("etcd:2379", "p", "neither http nor https"),
        ("ftp://etcd", "p", "neither http nor https"),
        ("http://etcd/v3", "p", "has a path"),
        ("http://", "p", "is no URL"),
        ("https://a_b..c:1", "p", "no certificate can name"),
        ("http://etcd", "", "1 to 256 bytes"),
        ("http://etcd", "//", "1 to 256 bytes"),
    ] {
        let why = broken(Etcd::open(&settings(endpoint, prefix), &chance()).await);
        assert!(why.contains(says), "{why}");
    }
    let none = Settings { endpoints: vec![], ..settings("http://etcd", "p") };
    assert!(broken(Etcd::open(&none, &chance()).await).contains("no endpoint"));
}

// --- Other hands ---

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_others_have_touched_are_noticed() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let journal = open(&members.settings).await;
    for n in 0..6 {
        journal.commit(record(&format!("record {n}"))).await.unwrap();
    }
    let key = |name: &str| format!("{}/{name}", members.settings.prefix);
    let control = |arguments: &[&str]| members.control(&[0], arguments).unwrap();
    let value = control(&["get", "--print-value-only", &key("record/0000000000000004")]);
    assert!(value.contains("record 3"));

    control(&["put", &key("record/0000000000000004"), "sixteen bytes at least"]);
    assert_eq!(journal.read(0, 3).await.unwrap().records.len(), 3);
    let why = broken(journal.read(0, 10).await);
    assert!(why.contains("position 4 is not what was written") && why.contains("hashkv"), "{why}");
    control(&["del", &key("record/0000000000000004")]);
    let why = broken(journal.read(1, 10).await);
    assert!(why.contains("position 4 is missing"), "{why}");

    control(&["put", &key("head"), "mine"]);
    assert!(broken(journal.commit(record("x")).await).contains("head is not ours"));
    control(&["del", &key(""), "--prefix"]);
    assert!(broken(journal.commit(record("x")).await).contains("its name is gone"));
    assert!(broken(journal.read(0, 10).await).contains("its name is gone"));
    let next = open(&members.settings).await;
    next.commit(record("of another journal")).await.unwrap();
    let outcomes = [
        journal.commit(record("x")).await.err(),
        journal.read(0, 1).await.err(),
        journal.cells("").await.err(),
    ];
    for outcome in outcomes {
        let why = outcome.unwrap().to_string();
        assert!(why.contains(&format!("was replaced by journal {}", next.id())), "{why}");
    }
    assert_eq!(texts(&next).await, ["of another journal"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_another_prefix_is_another_journal() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let (one, other) = ("perigee/a", "perigee/a0");
    let one = open(&Settings { prefix: one.into(), ..members.settings.clone() }).await;
    let other = open(&Settings { prefix: other.into(), ..members.settings.clone() }).await;
    assert_ne!(one.id(), other.id());
    for n in 0..3 {
        one.commit(Commit { record: Some(format!("one {n}")), ..write("cell", b"one") }).await.unwrap();
        other.commit(Commit { record: Some(format!("other {n}")), ..write("cell", b"other") }).await.unwrap();
    }
    one.trim(2).await.unwrap();
    let left = one.read(2, 10).await.unwrap().records;
    assert_eq!(left, [Record { position: 3, text: "one 2".into() }]);
    assert_eq!(texts(&other).await, ["other 0", "other 1", "other 2"]);
    assert_eq!(one.cell("cell").await.unwrap().unwrap().value, b"one");
    assert_eq!(other.cells("").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_is_told_and_it_works_again_afterwards() {
    let Some(members) = Members::start(1, &["--quota-backend-bytes", "8388608"]).await else { return };
    let journal = open(&members.settings).await;
    let text = "x".repeat(TEXT_BYTES_MAX / 2);
    // What has been trimmed is kept by etcd until it is compacted.
    let mut written = 0;
    let why = loop {
        match journal.commit(record(&text)).await {
            Ok(position) => written = position,
            Err(Error::Unavailable(why)) => break why,
            Err(error) => panic!("{error}"),
        }
        if let Err(error) = journal.trim(written - 1).await {
            break error.to_string();
        }
    };
    assert!(why.contains("space quota") && why.contains("alarm disarm"), "{why}");
    assert_eq!(*texts_after(&journal, written - 1).await, [text], "reading goes on");
    let status = members.control(&[0], &["endpoint", "status", "--write-out=json"]).unwrap();
    let revision: String =
        status.split("\"revision\":").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    for arguments in [&["compact", "--physical", &*revision][..], &["defrag"], &["alarm", "disarm"]] {
        members.control(&[0], arguments).unwrap();
    }
    assert_eq!(journal.commit(record("again")).await, Ok(written + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_journal_is_trimmed_in_parts() {
    let Some(members) = Members::start(1, &[]).await else { return };
    let journal = Arc::new(open(&members.settings).await);
    // As one commits at a time and the rest gathers, these are few transactions.
    let tasks: Vec<_> = (0..6_000)
        .map(|n| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move { journal.commit(record(&n.to_string())).await.unwrap() })
        })
        .collect();
    let mut positions = Vec::new();
    for task in tasks {
        positions.push(task.await.unwrap());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=6_000).collect::<Vec<_>>());
    journal.trim(5_999).await.unwrap();
    let page = journal.read(5_999, 10).await.unwrap();
    assert_eq!((page.records.len(), page.floor.position), (1, 5_999));
}
