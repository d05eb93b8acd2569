//! The edge of a play.

use std::time::Duration;

pub(super) struct Stage {}

impl Stage {
    pub(super) fn start(config: &str, _begin_secs: i64) -> Stage {
        panic!("no edge yet for {config}")
    }
    pub(super) fn address(&self) -> String {
        String::new()
    }
    pub(super) fn advance(&self, _time: Duration) {}
    pub(super) fn replace(&mut self, _config: &str) {}
    pub(super) fn purge(&mut self, _what: &str, _soft: bool) {}
    pub(super) fn stop(self) {}
}
