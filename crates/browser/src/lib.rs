//! A headless Chromium: started, told what to do, and asked what it saw. Used by what tests pages.
//!
//! [`Browser`] speaks the Chrome DevTools Protocol over a pair of pipes (`--remote-debugging-pipe`): no port that others of
//! the machine could reach, and no WebSocket. [`Page`] is one tab in a profile of its own, so that two pages share neither
//! cache nor cookies. [`Page::visit`] loads a URL and returns what a visitor would have got, [`Page::film`] also
//! what was to be seen meanwhile; whoever wants more calls the
//! protocol's methods by name ([`Page::call`]) and reads its events ([`Page::next_event`]).
//!
//! What it doesn't do: it decides nothing about what is good or slow, and emulates neither network nor device.

mod launch;
mod link;
mod page;
mod visit;

use std::fmt;
use std::io;

pub use launch::{Browser, Options, find};
pub use link::Event;
pub use page::Page;
pub use visit::{Exchange, Frame, Paint, Visit};

/// Why a browser could not do what it was told.
#[derive(Debug)]
pub enum Error {
    /// No Chromium was found under any of the names that are tried.
    Missing,
    /// It could not be started, or its profile's directory could not be made.
    Start(io::Error),
    /// It has ended, or its pipe has broken.
    Gone,
    /// It refused a call: the method, and what it said.
    Refused(&'static str, String),
    /// It answered something that the protocol does not foresee: the method, and what was missing.
    Strange(&'static str, &'static str),
    /// It did not answer a call in [`CALL_TIME_MAX`], or did not end a visit before its deadline.
    Late(&'static str),
}

/// Longest that a call may take: a browser on a loaded machine opens its first page in seconds.
pub const CALL_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing => write!(
                f,
                "no Chromium was found as {}; install it, or name its program",
                launch::NAMES.join(", ")
            ),
            Error::Start(error) => write!(f, "the browser could not be started: {error}"),
            Error::Gone => f.write_str("the browser has ended"),
            Error::Refused(method, said) => write!(f, "the browser refused {method}: {said}"),
            Error::Strange(method, missing) => {
                write!(
                    f,
                    "the browser's answer to {method} has no {missing}; is it a Chromium of this decade?"
                )
            }
            Error::Late(what) => write!(f, "the browser took too long for {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Start(error) => Some(error),
            _ => None,
        }
    }
}
