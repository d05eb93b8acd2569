//! The cases. Each gets a place with an empty journal.

use std::sync::Arc;
use std::time::Duration;

use journal::{
    CELLS_MAX, COMMIT_BYTES_MAX, Commit, Error, Journal, Mark, NAME_BYTES_MAX, PAGE_BYTES_MAX, Record,
    TEXT_BYTES_MAX,
};

use super::place::Place;

/// What a test waits for at most, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn record(text: &str) -> Commit {
    Commit { record: Some(text.to_owned()), ..Commit::default() }
}

fn write(name: &str, value: &[u8]) -> Commit {
    Commit { cells: vec![(name.to_owned(), Some(value.to_vec()))], ..Commit::default() }
}

async fn read_all(journal: &Arc<dyn Journal>, after: u64, limit: usize) -> Vec<Record> {
    let (mut after, mut all) = (after, Vec::new());
    loop {
        let page = journal.read(after, limit).await.unwrap();
        assert!(page.records.len() <= limit);
        all.extend(page.records.iter().cloned());
        match page.records.last() {
            Some(last) if page.has_more => after = last.position,
            _ => return all,
        }
    }
}

async fn write_some(journal: &Arc<dyn Journal>, count: usize) -> Vec<Record> {
    let mut written = Vec::new();
    for n in 0..count {
        let text = format!(r#"{{"n":{n}}}"#);
        let position = journal.commit(record(&text)).await.unwrap();
        written.push(Record { position, text: text.into() });
        if n % 3 == 0 {
            assert_eq!(journal.commit(write("between", b"records")).await.unwrap(), 0);
        }
    }
    written
}

pub(crate) async fn a_new_journal_is_empty(place: Place) {
    let journal = place.open_one().await;
    assert!(!journal.id().is_empty());
    let page = journal.read(0, 10).await.unwrap();
    assert_eq!((page.records, page.has_more, page.floor), (vec![], false, Mark::default()));
    assert_eq!(journal.cell("a").await.unwrap(), None);
    assert_eq!(journal.cells("").await.unwrap(), vec![]);
    journal.trim(100).await.unwrap();
    assert_eq!(journal.read(0, 10).await.unwrap().floor, Mark::default());
    assert_eq!(journal.commit(Commit::default()).await.unwrap(), 0);
}

pub(crate) async fn records_come_in_order(place: Place) {
    let journal = place.open_one().await;
    let written = write_some(&journal, 20).await;
    assert!(written[0].position > 0);
    assert!(written.windows(2).all(|pair| pair[0].position < pair[1].position), "{written:?}");
    for limit in [1, 3, 20, 1_000_000] {
        assert_eq!(read_all(&journal, 0, limit).await, written);
    }
    assert_eq!(journal.read(0, 0).await.unwrap().records.len(), 1, "a page has at least one record");
    assert!(journal.read(0, 19).await.unwrap().has_more);
    assert!(!journal.read(0, 20).await.unwrap().has_more);
}

pub(crate) async fn whoever_reads_after_a_position_gets_all_above_it(place: Place) {
    let journal = place.open_one().await;
    let written = write_some(&journal, 10).await;
    for after in 0..=written[9].position + 2 {
        let above: Vec<_> = written.iter().filter(|record| record.position > after).cloned().collect();
        assert_eq!(read_all(&journal, after, 4).await, above, "after {after}");
    }
    assert_eq!(read_all(&journal, u64::MAX, 4).await, vec![]);
}

pub(crate) async fn cells_and_record_appear_together_or_not_at_all(place: Place) {
    let journal = place.open_one().await;
    journal.commit(write("a", b"1")).await.unwrap();
    let known = journal.cell("a").await.unwrap().unwrap();
    journal.commit(write("a", b"2")).await.unwrap();
    let late = Commit {
        expect: vec![("b".into(), 0), ("a".into(), known.version)],
        cells: vec![("a".into(), Some(b"3".to_vec())), ("b".into(), Some(b"3".to_vec()))],
        record: Some("late".into()),
    };
    assert_eq!(journal.commit(late.clone()).await, Err(Error::Conflict("a".into())));
    assert_eq!(journal.cell("a").await.unwrap().unwrap().value, b"2");
    assert_eq!(journal.cell("b").await.unwrap(), None);
    assert_eq!(read_all(&journal, 0, 10).await, vec![]);

    let version = journal.cell("a").await.unwrap().unwrap().version;
    let timely = Commit { expect: vec![("b".into(), 0), ("a".into(), version)], ..late };
    let position = journal.commit(timely).await.unwrap();
    assert_eq!(journal.cell("a").await.unwrap().unwrap().value, b"3");
    assert_eq!(journal.cell("b").await.unwrap().unwrap().value, b"3");
    assert_eq!(read_all(&journal, 0, 10).await, vec![Record { position, text: "late".into() }]);
}

pub(crate) async fn nobody_sees_half_a_commit(place: Place) {
    const COMMITS: u64 = 40;
    let handles = place.open(2).await;
    let (writer, reader) = (Arc::clone(&handles[0]), &handles[1]);
    let writing = tokio::spawn(async move {
        for n in 1..=COMMITS {
            let cells = vec![("n".to_owned(), Some(n.to_string().into_bytes()))];
            writer.commit(Commit { cells, record: Some(n.to_string()), ..Commit::default() }).await.unwrap();
        }
    });
    let cell = async || {
        let cell = reader.cell("n").await.unwrap();
        cell.map_or(0, |cell| String::from_utf8(cell.value).unwrap().parse::<u64>().unwrap())
    };
    loop {
        // What the one shows, the other must show when it is asked later.
        let before = cell().await;
        let records = read_all(reader, 0, 1_000).await.len() as u64;
        let after = cell().await;
        assert!(before <= records && records <= after, "{before} {records} {after}");
        if before == COMMITS {
            break;
        }
    }
    writing.await.unwrap();
}

pub(crate) async fn of_writers_who_knew_the_same_one_wins(place: Place) {
    const WRITERS: u64 = 6;
    const EACH: u64 = 8;
    let handles = place.open(WRITERS as usize).await;
    let count = async |journal: Arc<dyn Journal>| {
        let mut conflicts = 0;
        for _ in 0..EACH {
            loop {
                let cell = journal.cell("count").await.unwrap();
                let (value, version) = cell.map_or((0, 0), |cell| {
                    (String::from_utf8(cell.value).unwrap().parse::<u64>().unwrap(), cell.version)
                });
                let next = (value + 1).to_string();
                let commit = Commit {
                    expect: vec![("count".into(), version)],
                    cells: vec![("count".into(), Some(next.clone().into_bytes()))],
                    record: Some(next),
                };
                match journal.commit(commit).await {
                    Ok(_) => break,
                    Err(Error::Conflict(cell)) => {
                        assert_eq!(cell, "count");
                        conflicts += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        conflicts
    };
    let tasks: Vec<_> = handles.iter().map(|journal| tokio::spawn(count(Arc::clone(journal)))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let texts: Vec<_> =
        read_all(&handles[0], 0, 7).await.iter().map(|record| record.text.to_string()).collect();
    assert_eq!(texts, (1..=WRITERS * EACH).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_version_never_comes_twice(place: Place) {
    let journal = place.open_one().await;
    let remove = |version| Commit::swap("a", version, None);
    let mut seen = 0;
    for _ in 0..3 {
        let create = Commit { expect: vec![("a".into(), 0)], ..write("a", b"x") };
        journal.commit(create.clone()).await.unwrap();
        let version = journal.cell("a").await.unwrap().unwrap().version;
        assert!(version > seen, "{version} after {seen}");
        assert_eq!(journal.commit(create).await, Err(Error::Conflict("a".into())));
        assert_eq!(journal.commit(remove(version + 1)).await, Err(Error::Conflict("a".into())));
        journal.commit(remove(version)).await.unwrap();
        assert_eq!(journal.cell("a").await.unwrap(), None);
        assert_eq!(journal.commit(remove(version)).await, Err(Error::Conflict("a".into())));
        seen = version;
    }
    // Removing what is not there is no error, and writing without expectations always works.
    journal.commit(remove(0)).await.unwrap();
    journal.commit(write("a", b"y")).await.unwrap();
    journal.commit(write("a", b"z")).await.unwrap();
    assert_eq!(journal.cell("a").await.unwrap().unwrap().value, b"z");
}

pub(crate) async fn a_trimmed_journal_says_from_where_to_read(place: Place) {
    let journal = place.open_one().await;
    let written = write_some(&journal, 12).await;
    let marks: Vec<_> = written
        .iter()
        .scan(Mark::default(), |mark, record| {
            *mark = mark.then(record);
            Some(*mark)
        })
        .collect();
    for through in [4, 4, 2, 7] {
        journal.trim(written[through].position).await.unwrap();
    }
    let floor = marks[7];
    for before in [0, written[3].position, floor.position - 1] {
        assert_eq!(journal.read(before, 10).await, Err(Error::Trimmed(floor)));
    }
    let page = journal.read(floor.position, 100).await.unwrap();
    assert_eq!((&page.records[..], page.floor), (&written[8..], floor));
    // Who begins at the floor ends with the digest of who has read all.
    let end = page.records.iter().fold(page.floor, |mark, record| mark.then(record));
    assert_eq!(end, marks[11]);
}

pub(crate) async fn trimming_goes_to_the_last_record_that_there_is(place: Place) {
    let journal = place.open_one().await;
    let written = write_some(&journal, 5).await;
    journal.trim(u64::MAX).await.unwrap();
    let floor = written.iter().fold(Mark::default(), |mark, record| mark.then(record));
    let page = journal.read(floor.position, 10).await.unwrap();
    assert_eq!((page.records, page.has_more, page.floor), (vec![], false, floor));

    let next = journal.commit(record("next")).await.unwrap();
    assert!(next > floor.position);
    journal.trim(next - 1).await.unwrap();
    let page = journal.read(floor.position, 10).await.unwrap();
    assert_eq!((page.records.len(), page.floor), (1, floor));
}

pub(crate) async fn a_change_is_noticed(place: Place) {
    let handles = place.open(2).await;
    let first = handles[0].commit(record("first")).await.unwrap();
    tokio::time::timeout(PATIENCE, handles[1].changed(0)).await.unwrap().unwrap();
    let mut after = first;
    for n in 0..5 {
        // What is there already, and what comes while somebody waits.
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let journal = Arc::clone(&handles[1]);
                tokio::spawn(async move {
                    while journal.read(after, 1).await.unwrap().records.is_empty() {
                        journal.changed(after).await.unwrap();
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let position = handles[0].commit(record(&n.to_string())).await.unwrap();
        for waits in waiting {
            tokio::time::timeout(PATIENCE, waits).await.expect("nobody noticed").unwrap();
        }
        after = position;
    }
}

pub(crate) async fn what_was_written_is_there_after_opening_again(place: Place) {
    let mut written = Vec::new();
    let mut id = None;
    for round in 0..3_u8 {
        let journal = place.open_one().await;
        assert_eq!(id.get_or_insert_with(|| journal.id().to_owned()), journal.id());
        assert_eq!(read_all(&journal, 0, 100).await, written);
        assert_eq!(
            journal.cell("round").await.unwrap().map(|cell| cell.value),
            round.checked_sub(1).map(|round| vec![round])
        );
        let last = written.last().map_or(0, |record: &Record| record.position);
        let more = write_some(&journal, 5).await;
        assert!(more[0].position > last);
        written.extend(more);
        journal.commit(write("round", &[round])).await.unwrap();
    }
    place.open_one().await.trim(written[6].position).await.unwrap();
    let journal = place.open_one().await;
    assert!(
        matches!(journal.read(0, 1).await, Err(Error::Trimmed(floor)) if floor.position == written[6].position)
    );
    assert_eq!(read_all(&journal, written[6].position, 100).await, written[7..]);
}

pub(crate) async fn what_is_allowed_fits_and_what_is_larger_is_refused(place: Place) {
    let journal = place.open_one().await;
    // Every byte takes the most room in JSON and base64 alike.
    let largest = "\u{1}".repeat(TEXT_BYTES_MAX);
    let refused = |commit: Commit| async {
        let Err(Error::Broken(why)) = journal.commit(commit).await else { panic!("was not refused") };
        assert!(why.contains("allowed") || why.contains("two values"), "{why}");
    };
    refused(record(&format!("{largest}x"))).await;
    refused(write("a", &vec![7; TEXT_BYTES_MAX + 1])).await;
    refused(write("", b"")).await;
    refused(write(&"n".repeat(NAME_BYTES_MAX + 1), b"")).await;
    refused(Commit { expect: vec![("n".repeat(NAME_BYTES_MAX + 1), 0)], ..Commit::default() }).await;
    let name = |n: usize| format!("{n:0>NAME_BYTES_MAX$}");
    let cells = |count| (0..count).map(|n| (name(n), Some(vec![255; 16]))).collect::<Vec<_>>();
    let expect = |count| (0..count).map(|n| (name(n), 0)).collect::<Vec<_>>();
    refused(Commit { cells: cells(CELLS_MAX + 1), ..Commit::default() }).await;
    refused(Commit { expect: expect(CELLS_MAX + 1), ..Commit::default() }).await;
    refused(Commit { cells: vec![("a".into(), None), ("a".into(), Some(vec![]))], ..Commit::default() })
        .await;
    let mut most =
        Commit { expect: expect(CELLS_MAX), cells: cells(CELLS_MAX), record: Some(largest.clone()) };
    let rest = COMMIT_BYTES_MAX - TEXT_BYTES_MAX - CELLS_MAX * NAME_BYTES_MAX - (CELLS_MAX - 1) * 16;
    most.cells[0].1 = Some(vec![255; rest + 1]);
    refused(most.clone()).await;
    assert_eq!(read_all(&journal, 0, 10).await, vec![]);
    assert_eq!(journal.cells("").await.unwrap(), vec![]);

    most.cells[0].1 = Some(vec![255; rest]);
    journal.commit(most.clone()).await.unwrap();
    assert_eq!(journal.commit(most).await, Err(Error::Conflict(name(0))));
    journal.commit(write("a", &vec![7; TEXT_BYTES_MAX])).await.unwrap();
    for _ in 0..3 {
        journal.commit(record(&largest)).await.unwrap();
    }
    let page = journal.read(0, 100).await.unwrap();
    assert_eq!((page.records.len(), page.has_more), (PAGE_BYTES_MAX / TEXT_BYTES_MAX, true));
    let all = read_all(&journal, 0, 100).await;
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|record| *record.text == *largest));
    assert_eq!(journal.cells("").await.unwrap().len(), CELLS_MAX + 1);
    assert_eq!(journal.cell(&name(0)).await.unwrap().unwrap().value.len(), rest);
    assert_eq!(journal.cell("a").await.unwrap().unwrap().value, vec![7; TEXT_BYTES_MAX]);
}

pub(crate) async fn names_and_texts_may_be_odd(place: Place) {
    let journal = place.open_one().await;
    let mut names = vec![
        " ",
        "%",
        "'",
        "\"",
        "\\",
        "\0",
        "a",
        "a\0b",
        "a/b",
        "a/",
        "a\nb",
        "A",
        "..",
        "../floor",
        "/",
        "ä",
        "ab",
        "b",
        "\u{7f}",
        "\u{10ffff}",
        "record/1",
        "floor",
        "*",
        "?a=b",
    ];
    for name in &names {
        journal.commit(write(name, name.as_bytes())).await.unwrap();
    }
    names.sort_unstable();
    for prefix in ["", "a", "a/", "\u{10ffff}", "..", "none", "\0"] {
        let found: Vec<_> = journal.cells(prefix).await.unwrap();
        let wanted: Vec<_> = names.iter().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(
            found.iter().map(|cell| &*cell.name).collect::<Vec<_>>(),
            wanted.into_iter().copied().collect::<Vec<_>>()
        );
        assert!(found.iter().all(|cell| cell.value == cell.name.as_bytes()));
    }
    for name in &names {
        assert_eq!(journal.cell(name).await.unwrap().unwrap().name, *name);
    }
    journal.commit(write("empty", b"")).await.unwrap();
    assert_eq!(journal.cell("empty").await.unwrap().unwrap().value, b"");
    let texts = ["", "\0", "'; DROP TABLE record; --", "\u{fffd}\u{10ffff}", r#"{"a":  1}"#, "\r\n"];
    for text in texts {
        journal.commit(record(text)).await.unwrap();
    }
    let read: Vec<_> =
        read_all(&journal, 0, 100).await.iter().map(|record| record.text.to_string()).collect();
    assert_eq!(read, texts);
}
