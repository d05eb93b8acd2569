//! The JSON of a purge: what is asked, checked for being one clear thing, and what is answered. Carrying it out is
//! [`crate::Handle::purge`]'s.

use axum::http::StatusCode;
use model::change::{ORDERS_MAX, Order, What, check_tag, parse_prefix};
use model::diagnostic::{Mistake, few};
use model::{Snapshot, Url};
use serde::Deserialize;

use super::api::Problem;
use crate::PurgeError;

/// Seconds after which a purge that came amid an upgrade is worth another try.
const HANDING_OVER_RETRY_SECS: u32 = 1;
const NOTHING_PURGED: &str = "nothing was purged; correct it and purge again";

/// The body of `POST /v1/purge`. Exactly one of `url`, `prefix`, `tag` or `tags`, `everything`, or `site` alone; beside
/// tags, `site` narrows them to one site.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PurgeBody {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    tags: Vec<String>,
    site: Option<String>,
    everything: bool,
    soft: bool,
}

impl PurgeBody {
    /// The purges to carry out, in order, each checked against the configuration; several only for several surrogate keys. Never
    /// none.
    pub(super) fn orders(self, snapshot: &Snapshot) -> Result<Vec<Order>, Problem> {
        let PurgeBody { url, prefix, tag, mut tags, site, everything, soft } = self;
        tags.extend(tag);
        let kinds = [url.is_some(), prefix.is_some(), !tags.is_empty(), everything];
        let count = kinds.iter().filter(|&&is_named| is_named).count();
        let may_have_site = !tags.is_empty() || count == 0;
        if count > 1 || (count == 0 && site.is_none()) || (site.is_some() && !may_have_site) {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "a purge names exactly one kind of thing")
                .found(if count > 1 { "several" } else { "none, or a site beside something else than tags" })
                .wanted("one of url, prefix, tag or tags, site, everything; tags may have a site")
                .next("purge in several requests"));
        }
        if tags.len() > ORDERS_MAX {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too many surrogate keys for one purge")
                .found(tags.len().to_string())
                .wanted(format!("at most {ORDERS_MAX}"))
                .next("nothing was purged; purge in parts"));
        }
        if let Some(name) = &site
            && snapshot.site_named(name).is_none()
        {
            let names = few(snapshot.sites.iter().map(|site| &*site.name));
            return Err(Problem::new(StatusCode::NOT_FOUND, "no site of the configuration is called so")
                .found(format!("{name:?}"))
                .wanted(names)
                .next(NOTHING_PURGED));
        }
        let whats = match (url, prefix, site) {
            (Some(url), ..) => {
                vec![What::Url { site: site_of("url", &url, Url::parse(&url), snapshot)?, url }]
            }
            (_, Some(prefix), _) => {
                let site = site_of("prefix", &prefix, parse_prefix(&prefix), snapshot)?;
                vec![What::Prefix { site, prefix }]
            }
            (.., site) if !tags.is_empty() => {
                for tag in &tags {
                    check_tag(tag).map_err(|mistake| nothing_purged("tag", tag, mistake))?;
                }
                tags.into_iter().map(|tag| What::Tag { tag, site: site.clone() }).collect()
            }
            (.., Some(site)) => vec![What::Site { site }],
            (.., None) => vec![What::Everything],
        };
        Ok(whats.into_iter().map(|what| Order { what, soft }).collect())
    }
}

/// The name of the site that a URL is of.
fn site_of(
    name: &str,
    text: &str,
    url: Result<Url<'_>, Mistake>,
    snapshot: &Snapshot,
) -> Result<String, Problem> {
    let host = url.map_err(|mistake| nothing_purged(name, text, mistake))?.host();
    let site = snapshot.site_for(&host).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no site of the configuration serves this host")
            .found(format!("{host:?}"))
            .wanted(hosts_served(snapshot))
            .next(NOTHING_PURGED)
    })?;
    Ok(site.name.to_string())
}

fn nothing_purged(name: &str, found: &str, mistake: Mistake) -> Problem {
    Problem::mistake(name, found, mistake).next(format!("nothing was purged; {}", mistake.next))
}

/// A purge that could not be carried out.
pub(super) fn refused(error: &PurgeError) -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    match error {
        PurgeError::NotLogged(_) => problem
            .next("make room on the disk of the state directory, or look why it fails, and purge again"),
        PurgeError::HandingOver => problem
            .retry_after(HANDING_OVER_RETRY_SECS)
            .next("purge again in a moment; the process that takes over answers then"),
        PurgeError::NotSafe(_) => {
            problem.next("look why the disk of the state directory fails, and purge again")
        }
    }
}

/// The domains that the configuration names, for people who have asked for another.
pub(super) fn hosts_served(snapshot: &Snapshot) -> String {
    few(snapshot.sites.iter().flat_map(|site| &site.domains).map(|domain| &**domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(body: &str) -> Result<Vec<Order>, Problem> {
        let site = "[[site]]\nname = \"shop\"\ndomains = \"a\"\norigin = \"http://127.0.0.1:9\"\n";
        let snapshot = Snapshot::parse(site, "test").snapshot.unwrap();
        serde_json::from_str::<PurgeBody>(body).unwrap().orders(&snapshot)
    }

    #[test]
    fn each_kind_becomes_its_orders() {
        let check = |body: &str, whats: &[What], soft: bool| {
            let wanted: Vec<_> = whats.iter().map(|what| Order { what: what.clone(), soft }).collect();
            assert_eq!(orders(body).unwrap(), wanted, "{body}");
        };
        let site = || "shop".to_owned();
        let tag = |tag: &str, site: Option<String>| What::Tag { tag: tag.into(), site };
        check(r#"{"everything":true}"#, &[What::Everything], false);
        check(r#"{"everything":true,"soft":true}"#, &[What::Everything], true);
        check(r#"{"site":"shop"}"#, &[What::Site { site: site() }], false);
        check(r#"{"url":"http://A/"}"#, &[What::Url { site: site(), url: "http://A/".into() }], false);
        let prefix = What::Prefix { site: site(), prefix: "http://a/b".into() };
        check(r#"{"prefix":"http://a/b"}"#, &[prefix], false);
        check(r#"{"tag":"a"}"#, &[tag("a", None)], false);
        let both = [tag("a", Some(site())), tag("b", Some(site()))];
        check(r#"{"tags":["a","b"],"site":"shop"}"#, &both, false);
    }

    #[test]
    fn what_is_not_one_clear_purge_is_refused() {
        for body in [
            "{}",
            r#"{"soft":true}"#,
            r#"{"everything":false}"#,
            r#"{"tags":[]}"#,
            r#"{"url":"http://a/","everything":true}"#,
            r#"{"url":"http://a/","site":"shop"}"#,
            r#"{"everything":true,"site":"shop"}"#,
            r#"{"tag":"a","prefix":"http://a/x"}"#,
            r#"{"tag":""}"#,
            r#"{"tag":"a b"}"#,
            r#"{"tags":["a","b,c"]}"#,
            r#"{"site":"blog"}"#,
            r#"{"tag":"a","site":"blog"}"#,
            r#"{"url":"/a"}"#,
            r#"{"url":"http://b/"}"#,
            r#"{"prefix":"http://a/?b"}"#,
        ] {
            assert!(orders(body).is_err(), "{body}");
        }
        assert!(
            serde_json::from_str::<PurgeBody>(r#"{"everthing":true}"#).is_err(),
            "a typo is not everything"
        );
    }
}
