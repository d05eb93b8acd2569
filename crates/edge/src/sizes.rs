//! Holds the sizes of futures of which there is one for each visitor who waits. What a future keeps over an `await` takes memory for each
//! of them, and shows nowhere but in what an edge needs: see `docs/benchmarks.md`, "Memory, part by part".
//!
//! They are the same with and without optimisation: how a future lies is settled before that.

/// The bytes of the future that `make` would make. It is not called.
pub(crate) fn of<Given, F: Future>(_make: impl FnOnce(Given) -> F) -> usize {
    size_of::<F>()
}

/// Fails when what had `before` bytes has a quarter more.
#[track_caller]
pub(crate) fn check(what: &str, bytes: usize, before: usize) {
    let most = before + before / 4;
    assert!(
        bytes <= most,
        "{what} has {bytes} bytes, and may have {most}: it had {before}. Something large lives over an await in it, or a future in it is \
         called without a box. Box what is seldom, or have it end before the await; -Zprint-type-sizes lists what it keeps, and \
         docs/benchmarks.md, \"Memory, part by part\", says what that costs. If it must be so, write the new size here"
    );
}
