//! The terminal: what is said stays, the newest figures stand in one line below it, single keys are read. Where there is no terminal, lines
//! are lines, and keys are bytes of standard input.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Between two lines of figures where there is no terminal.
const FIGURES_INTERVAL: Duration = Duration::from_secs(10);
/// Keys that wait to be heard; more are lost.
const KEYS_MAX: usize = 16;

/// Where text goes.
pub(super) struct Screen {
    to_stderr: bool,
    is_terminal: bool,
    has_figures: Cell<bool>,
    last_figures: Cell<Option<Instant>>,
}

impl Screen {
    /// Standard output; standard error where that is for something else.
    pub(super) fn new(to_stderr: bool) -> Self {
        let is_terminal = if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Screen { to_stderr, is_terminal, has_figures: Cell::new(false), last_figures: Cell::new(None) }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        let clear = if self.has_figures.replace(false) { "\r\x1b[K" } else { "" };
        self.write(&format!("{clear}{}\n", text.trim_end_matches('\n')));
    }

    /// Shows the newest figures.
    pub(super) fn show_figures(&self, text: &str) {
        if self.is_terminal {
            let width = self.width();
            let line: String = text.chars().take(width.saturating_sub(1)).collect();
            self.has_figures.set(true);
            self.write(&format!("\r\x1b[K{line}"));
        } else if self.last_figures.get().is_none_or(|last| last.elapsed() >= FIGURES_INTERVAL) {
            self.last_figures.set(Some(Instant::now()));
            self.say(text);
        }
    }

    fn width(&self) -> usize {
        let size = if self.to_stderr { tcgetwinsize(io::stderr()) } else { tcgetwinsize(io::stdout()) };
        size.map_or(80, |size| usize::from(size.ws_col)).max(20)
    }

    /// A terminal that has gone away is told of by SIGHUP, and a reader that has, by nobody: the demo goes on until it is stopped.
    fn write(&self, text: &str) {
        let _gone = match self.to_stderr {
            true => io::stderr().lock().write_all(text.as_bytes()),
            false => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
        };
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.has_figures.get() {
            self.write("\n");
        }
    }
}

/// Single keys, for as long as this lives; afterwards the terminal is as it was.
pub(super) struct Keys {
    heard: mpsc::Receiver<char>,
    before: Option<Termios>,
}

impl Keys {
    /// Begins to listen, unless standard input is a terminal that another job has.
    pub(super) fn listen() -> Self {
        let (sender, heard) = mpsc::channel(KEYS_MAX);
        let stdin = io::stdin();
        let mut before = None;
        if stdin.is_terminal() {
            let is_ours = tcgetpgrp(stdin.as_fd()).is_ok_and(|group| group == rustix::process::getpgrp());
            if !is_ours {
                return Keys { heard, before };
            }
            if let Ok(modes) = tcgetattr(stdin.as_fd()) {
                let mut single = modes.clone();
                // Ctrl-C stays what it is.
                single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
                if tcsetattr(stdin.as_fd(), OptionalActions::Now, &single).is_ok() {
                    before = Some(modes);
                }
            }
        }
        // It ends with the process: nothing wakes who reads from a terminal.
        std::thread::spawn(move || {
            for byte in io::stdin().lock().bytes().map_while(Result::ok) {
                if sender.blocking_send(char::from(byte)).is_err() {
                    return;
                }
            }
        });
        Keys { heard, before }
    }

    /// The next key; never, once there can be none.
    pub(super) async fn next(&mut self) -> char {
        match self.heard.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _gone = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}
