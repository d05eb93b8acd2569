//! See [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use super::gateway::Gateway;
use super::wire::{self, Head, Line, Range, Transaction};
use super::{Keys, Settings, Shared};
use crate::{Mark, Record};

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let settings = Settings {
        endpoints: vec!["http://etcd".into()],
        prefix: "p".into(),
        ca_file: None,
        certificate: None,
        user: None,
    };
    let gateway = Gateway::new(&settings, Arc::new(|| 0)).expect("settings that work");
    let keys = Keys::new("p").expect("a prefix");
    Shared { gateway, keys, id: "id".into(), recent: Mutex::default() }
});

/// An answer of any kind: refused, or read to what an engine may give.
pub fn etcd_answer(bytes: &[u8], after: u64, status: u16) {
    drop(wire::refused("http://etcd", status, bytes));
    if let Ok(watched) = Line::read(bytes) {
        let begin = Mark { position: after, ..Mark::default() };
        SHARED.recent.lock().begin(begin);
        watched.events.iter().filter_map(|event| event.kv.as_ref()).for_each(|kv| SHARED.bring(kv));
        follow(begin, &SHARED.recent.lock().after(begin, usize::MAX));
    }
    if let Ok(head) = Head::read(bytes) {
        let next = head.then(head.mark, "name");
        assert_eq!(Head::read(&next.to_bytes()).as_ref(), Ok(&next));
        assert!(
            next.recent.len() <= wire::RECENT_MAX && next.recent.last().is_some_and(|last| last == "name")
        );
    }
    if let Some((digest, text)) = wire::read_record(bytes) {
        assert_eq!(wire::record_value(digest, text), bytes);
    }
    if let Ok(range) = serde_json::from_slice::<Range>(bytes) {
        page(
            after,
            &[Range::of("p/floor", br#"{"position":0,"digest":"00000000000000000000000000000000"}"#), range],
        );
    }
    if let Ok(answer) = serde_json::from_slice::<Transaction>(bytes) {
        let ranges = answer.into_ranges();
        drop(SHARED.same(ranges.first()));
        drop(SHARED.read_head(ranges.first()));
        page(after, &ranges);
    }
}

/// A page is in order, without a gap, and its digests follow from the floor or the record before.
fn page(after: u64, ranges: &[Range]) {
    let Ok(page) = SHARED.page(after, 3, ranges) else { return };
    assert!(page.records.len() <= 3 && page.floor.position <= after);
    follow(Mark { position: after, ..Mark::default() }, &page.records);
}

fn follow(mut mark: Mark, records: &[Record]) {
    for record in records {
        assert_eq!(record.position, mark.position + 1);
        mark = mark.then(record);
    }
}
