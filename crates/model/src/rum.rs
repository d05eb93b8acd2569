//! What browsers are to tell of page views (real user monitoring): the settings. How it is done is the edge's affair.

/// The script that pages load; also what it sends goes there, without its ending.
pub const SCRIPT_PATH: &str = "/.perigee/beacon.js";

/// What stands in a page to load it.
pub const SCRIPT_TAG: &str = "<script async src=\"/.perigee/beacon.js\"></script>";

/// What a rule says of page views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rum {
    /// One of so many page views is told of.
    pub one_in: u32,
    /// What its pages are counted as; `None`: the first part of each page's path.
    pub group: Option<Box<str>>,
    /// Whether the script is put into pages as they come from the origin.
    pub inject: bool,
    /// Whether the script waits until the page says that the visitor has agreed.
    pub consent: bool,
}

impl Default for Rum {
    fn default() -> Self {
        Rum { one_in: 1, group: None, inject: false, consent: false }
    }
}
