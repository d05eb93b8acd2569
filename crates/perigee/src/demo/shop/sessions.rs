//! Who has logged in, and what they have put into their carts. In memory: a shop that is begun anew each time has no old customers.

use std::collections::{HashMap, VecDeque};

use http::{HeaderMap, header};
use parking_lot::Mutex;

/// The cookie's name.
pub(super) const COOKIE: &str = "session";
/// Sessions that are kept; the oldest goes first.
const SESSIONS_MAX: usize = 10_000;
/// Things in a cart.
const ITEMS_MAX: usize = 100;
/// Characters of a name.
const NAME_CHARS_MAX: usize = 60;

/// One customer.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub(super) name: Option<String>,
    /// Numbers of products.
    pub(super) items: Vec<usize>,
}

/// All of them, by what their cookies say.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_token: HashMap<String, Session>,
    in_order: VecDeque<String>,
}

impl Sessions {
    /// A new session, for somebody of that name. `None` when no secret can be drawn: then nobody is logged in.
    pub(super) fn log_in(&self, name: &str) -> Option<String> {
        let name = name.trim().chars().take(NAME_CHARS_MAX).collect();
        self.begin(Session { name: Some(name), items: Vec::new() })
    }

    /// Puts something into a cart. If there was no session, the token of the one that begins.
    pub(super) fn add(&self, headers: &HeaderMap, number: usize) -> Option<String> {
        let token = token(headers).unwrap_or_default();
        if let Some(session) = self.0.lock().by_token.get_mut(token) {
            if session.items.len() < ITEMS_MAX {
                session.items.push(number);
            }
            return None;
        }
        self.begin(Session { name: None, items: vec![number] })
    }

    /// The session that a request belongs to, or an empty one.
    pub(super) fn of(&self, headers: &HeaderMap) -> Session {
        let token = token(headers).unwrap_or_default();
        self.0.lock().by_token.get(token).cloned().unwrap_or_default()
    }

    fn begin(&self, session: Session) -> Option<String> {
        let mut secret = [0; 16];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        let token: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut kept = self.0.lock();
        if kept.in_order.len() == SESSIONS_MAX
            && let Some(oldest) = kept.in_order.pop_front()
        {
            kept.by_token.remove(&oldest);
        }
        kept.in_order.push_back(token.clone());
        kept.by_token.insert(token.clone(), session);
        Some(token)
    }
}

/// What the session's cookie says.
fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        headers
    }

    #[test]
    fn a_session_is_its_owners() {
        let sessions = Sessions::default();
        let token = sessions.log_in("  Ada ").unwrap();
        let hers = with(&format!("theme=dark; session={token}"));
        assert_eq!(sessions.add(&hers, 17), None);
        let session = sessions.of(&hers);
        assert_eq!((session.name.as_deref(), session.items), (Some("Ada"), vec![17]));
        assert!(sessions.of(&with("session=guessed")).items.is_empty());
        let begun = sessions.add(&HeaderMap::new(), 3).unwrap();
        assert_eq!(sessions.of(&with(&format!("session={begun}"))).items, [3]);
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let sessions = Sessions::default();
        let first = sessions.log_in("first").unwrap();
        for _ in 0..SESSIONS_MAX {
            sessions.log_in("next").unwrap();
        }
        assert_eq!(sessions.of(&with(&format!("session={first}"))).name, None);
        assert_eq!(sessions.0.lock().by_token.len(), SESSIONS_MAX);
    }
}
