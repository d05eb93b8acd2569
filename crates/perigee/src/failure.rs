//! What a command says when it cannot do what it was asked: the place, the value, what was wanted, the next step.

use std::fmt;

/// One sentence about what went wrong, and one about what to do. Printed to standard error; the exit code is 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    next: String,
}

impl Failure {
    /// `message` names place, value and what was wanted; `next` is the step to take, or empty.
    pub(crate) fn new(message: impl Into<String>, next: impl Into<String>) -> Self {
        // Findings, and errors of the toml crate, end their own last line.
        let message = message.into().trim_end().to_owned();
        Failure { message, next: next.into() }
    }

    /// Of whole sentences, the first of which may be a finding of a configuration and then begins as this is shown.
    pub(crate) fn of_sentences(sentences: &[String]) -> Failure {
        let text = sentences.join("\n");
        match text.strip_prefix("error: ") {
            Some(findings) => {
                Failure::new(findings, "correct it; perigee check --cluster FILE shows everything")
            }
            None => Failure::new(text, ""),
        }
    }

    /// With another step that may be the right one.
    pub(crate) fn or(mut self, next: &str) -> Self {
        self.next.push_str("; or ");
        self.next.push_str(next);
        self
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Failure::new(error.message(), error.next())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if !self.next.is_empty() {
            write!(f, "\n  next: {}", self.next)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_no_error_twice_and_is_to_be_corrected() {
        let said = |sentence: &str| Failure::of_sentences(&[sentence.to_owned()]).to_string();
        assert_eq!(
            said("error: no such place\n --> c.toml:1:1\n"),
            "error: no such place\n --> c.toml:1:1\n  next: correct it; perigee check --cluster FILE shows everything"
        );
        assert_eq!(said("cannot listen on [::]:53"), "error: cannot listen on [::]:53");
    }

    #[test]
    fn no_line_is_empty_between_what_is_wrong_and_what_to_do() {
        let failure = Failure::new("7 lines and no request\n  2 are no log\n", "name a log");
        assert_eq!(failure.to_string(), "error: 7 lines and no request\n  2 are no log\n  next: name a log");
    }
}
