//! One order, from the account to the chain (RFC 8555 §7). Talks to the authority and to the store, decides nothing about
//! when.

use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use semantics::Wall;

use crate::http::Https;
use crate::plan::Window;
use crate::store::{Asked, Store, Stored};
use crate::{Kind, Settings};

/// How long an authority may take to validate, and to issue. Let's Encrypt needs seconds.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// How long a whole order may take.
pub(crate) const ORDER_TIMEOUT: Duration = Duration::from_secs(8 * 60);

/// How long a challenge is answered at most: as long as its order may take.
const CHALLENGE_MAX: Duration = ORDER_TIMEOUT;

/// How often it is looked whether another order has made the account.
const ACCOUNT_INTERVAL: Duration = Duration::from_millis(200);

/// What an order needs to know.
pub(crate) struct Ordering<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) store: &'a Store,
    pub(crate) domain: &'a str,
    /// Which challenge is answered.
    pub(crate) kind: Kind,
    pub(crate) now: Wall,
    /// The certificate that the new one replaces.
    pub(crate) replaces: Option<&'a Stored>,
}

impl Ordering<'_> {
    /// Orders. `answer` makes all edges answer what has been put into the store, and returns when they do.
    pub(crate) async fn run<F: Future<Output = ()>>(&self, answer: impl Fn() -> F) -> Result<Stored, String> {
        let account = self.account().await?;
        let mut order = self.begin(&account).await?;
        let mut asked = Vec::new();
        let validated = self.validate(&mut order, &mut asked, answer).await;
        asked.iter().for_each(|one| self.store.remove_challenge(&one.token));
        validated?;
        self.finish(order).await
    }

    /// The account in the store, or a new one.
    async fn account(&self) -> Result<Account, String> {
        let _lock = loop {
            if let Some(account) = account(self.settings, self.store).await? {
                return Ok(account);
            }
            // Another order, here or at another edge, makes it just now. The order's own time bounds the wait.
            match self.store.lock("account", self.now).map_err(|error| in_store(&error))? {
                Some(lock) => break lock,
                None => tokio::time::sleep(ACCOUNT_INTERVAL).await,
            }
        };
        // Whoever had the lock before may have made it.
        if let Some(account) = account(self.settings, self.store).await? {
            return Ok(account);
        }
        let contact = self.settings.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let https = Https::new(self.settings.ca_file.as_deref())?;
        let (account, credentials) = Account::builder_with_http(Box::new(https))
            .create(&wanted, self.settings.directory.clone(), None)
            .await
            .map_err(|error| format!("the account was not made: {}", describe(&error)))?;
        self.store.put_account(&credentials).map_err(|error| in_store(&error))?;
        Ok(account)
    }

    async fn begin(&self, account: &Account) -> Result<Order, String> {
        let identifiers = [Identifier::Dns(self.domain.to_owned())];
        let replaces = self.replaces.and_then(|stored| CertificateIdentifier::try_from(&stored.der).ok());
        if let Some(replaces) = replaces {
            match account.new_order(&NewOrder::new(&identifiers).replaces(replaces)).await {
                Ok(order) => return Ok(order),
                // The authority doesn't know the old one, or nothing of replacing.
                Err(Error::Api(_) | Error::Unsupported(_) | Error::Str(_)) => {}
                Err(error) => return Err(format!("the order was not taken: {}", describe(&error))),
            }
        }
        let ordered = account.new_order(&NewOrder::new(&identifiers)).await;
        ordered.map_err(|error| format!("the order was not taken: {}", describe(&error)))
    }

    /// Shows that the domain is ours. What is put into the store for that is noted in `asked`.
    async fn validate<F: Future<Output = ()>>(
        &self,
        order: &mut Order,
        asked: &mut Vec<Asked>,
        answer: impl Fn() -> F,
    ) -> Result<(), String> {
        let wrong = |error: Error| format!("the domain was not validated: {}", describe(&error));
        let kind = match self.kind {
            Kind::Http01 => ChallengeType::Http01,
            Kind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(wrong)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(format!("the authorization is {status:?} already")),
            }
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                return Err(format!("the authority does not offer the challenge {}", self.kind.as_str()));
            };
            let one = Asked {
                domain: self.domain.into(),
                token: challenge.token.as_str().into(),
                key_authorization: challenge.key_authorization().as_str().into(),
                until_ms: self.now.0.saturating_add(CHALLENGE_MAX.as_millis() as i64),
            };
            self.store.put_challenge(&one).map_err(|error| in_store(&error))?;
            asked.push(one);
            answer().await;
            challenge.set_ready().await.map_err(wrong)?;
        }
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.why_invalid(order).await),
            Err(error) => Err(wrong(error)),
        }
    }

    /// What the authority found when it looked.
    async fn why_invalid(&self, order: &mut Order) -> String {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { continue };
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
                return format!("the authority's look by {} failed: {problem}", self.kind.as_str());
            }
        }
        format!("the authority's look by {} failed", self.kind.as_str())
    }

    /// Makes a key, has it certified, and keeps both.
    async fn finish(&self, mut order: Order) -> Result<Stored, String> {
        let ours = |error: rcgen::Error| format!("the request for a certificate cannot be made: {error}");
        let key = KeyPair::generate().map_err(ours)?;
        let mut wanted = CertificateParams::new([self.domain.to_owned()]).map_err(ours)?;
        wanted.distinguished_name = DistinguishedName::new();
        let request = wanted.serialize_request(&key).map_err(ours)?;
        let not_issued = |error: Error| format!("the certificate was not issued: {}", describe(&error));
        order.finalize_csr(request.der()).await.map_err(not_issued)?;
        let chain = order.poll_certificate(&PATIENCE).await.map_err(not_issued)?;
        let pem = format!("{}\n{}", chain.trim_end(), key.serialize_pem());
        let stored = Stored::from_pem(self.domain, pem.into_bytes())
            .map_err(|what| format!("the certificate that was issued cannot be used: {what}"))?;
        self.store.put_certificate(&stored).map_err(|error| in_store(&error))?;
        Ok(stored)
    }
}

/// The account of the store, ready for use; `None` when there is none.
async fn account(settings: &Settings, store: &Store) -> Result<Option<Account>, String> {
    let Some(credentials) = store.account::<AccountCredentials>()? else { return Ok(None) };
    let https = Https::new(settings.ca_file.as_deref())?;
    let restored = Account::builder_with_http(Box::new(https)).from_credentials(credentials).await;
    let restored = restored.map_err(|error| format!("{}: {}", settings.directory, describe(&error)))?;
    Ok(Some(restored))
}

/// When the authority wants `stored` to be renewed, and how long that is worth believing. `None` where it doesn't say.
pub(crate) async fn suggested(
    settings: &Settings,
    store: &Store,
    stored: &Stored,
) -> Option<(Window, Duration)> {
    let account = account(settings, store).await.ok()??;
    let identifier = CertificateIdentifier::try_from(&stored.der).ok()?;
    let (info, retry) = account.renewal_info(&identifier).await.ok()?;
    let wall = |time: i64| Wall(time.saturating_mul(1000));
    let window = Window {
        start: wall(info.suggested_window.start.unix_timestamp()),
        end: wall(info.suggested_window.end.unix_timestamp()),
    };
    Some((window, retry))
}

/// An error with its causes, in one line.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn in_store(error: &std::io::Error) -> String {
    format!("the store of certificates cannot be written: {error}")
}
