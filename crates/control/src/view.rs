//! What requests look at: the cells that decide who may do what and where things are, as they were when they were read last. Read
//! twice a second, and at once after this control has changed one. While the journal cannot be reached, what was read last
//! stays in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use journal::feed::PLAN_CELL;
use journal::{Error, Journal};
use model::Snapshot;
use model::change::{Plan, Version};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::cells;
use crate::configurations;
use crate::nodes::Node;
use crate::tokens::Token;

/// The newest picture.
#[derive(Default)]
pub(crate) struct View {
    picture: RwLock<Shown>,
    /// When the reading began that the picture is of. One reads at a time, so that nothing older takes the place of something newer.
    read: tokio::sync::Mutex<Option<Instant>>,
}

/// What is looked at.
#[derive(Default)]
struct Shown {
    picture: Arc<Picture>,
    /// Hashes of tokens and keys of nodes that were taken away here, and when: a reading that began before may still find them.
    gone: Vec<(Instant, String)>,
}

/// A picture of what the cells said.
#[derive(Clone, Default)]
pub(crate) struct Picture {
    /// By the hash of their secrets.
    pub(crate) tokens: HashMap<String, Arc<Token>>,
    /// By name.
    pub(crate) nodes: BTreeMap<String, Arc<Node>>,
    /// Names of nodes that are enrolled and whose cells cannot be read here.
    pub(crate) unreadable_nodes: Vec<String>,
    pub(crate) plan: Plan,
    /// Whether all the configurations that the plan names could be read.
    pub(crate) is_whole: bool,
    /// The configurations of the plan: stable, then candidate.
    configurations: Vec<(Version, Arc<Snapshot>)>,
}

impl View {
    pub(crate) fn get(&self) -> Arc<Picture> {
        Arc::clone(&self.picture.read().picture)
    }

    /// Leaves out a token, by its hash, or a node, by its key, that has been taken away, at once: the journal may not be readable just now.
    pub(crate) fn forget(&self, hash_or_key: &str) {
        let mut shown = self.picture.write();
        shown.gone.push((Instant::now(), hash_or_key.to_owned()));
        Arc::make_mut(&mut shown.picture).leave_out(hash_or_key);
    }

    /// Reads all of it. What cannot be read is left out, or stays as it was: the rest is seen all the same.
    ///
    /// Gives the first of what could not be read.
    ///
    /// # Errors
    /// The journal cannot be reached, and nothing has changed.
    pub(crate) async fn refresh(&self, journal: &dyn Journal) -> Result<Option<Error>, Error> {
        let asked = Instant::now();
        let mut read = self.read.lock().await;
        if read.is_some_and(|began| began > asked) {
            // Whoever was before this one has begun after it was asked for.
            return Ok(None);
        }
        let began = Instant::now();
        let (tokens, unread_tokens) = cells::load_readable::<Token>(journal, "tokens/").await?;
        let (nodes, unread_nodes) = cells::load_readable::<Node>(journal, "nodes/").await?;
        let before = self.get();
        let (plan, unread_plan) = match cells::load::<Plan>(journal, PLAN_CELL).await {
            Ok(plan) => (plan.map(|(plan, _)| plan).unwrap_or_default(), None),
            Err(error @ Error::Broken(_)) => (before.plan.clone(), Some(error)),
            Err(error) => return Err(error),
        };
        let is_whole = unread_plan.is_none();
        let unreadable_nodes =
            unread_nodes.iter().map(|(name, _)| name.trim_start_matches("nodes/").to_owned()).collect();
        let unread_cells = unread_tokens.into_iter().chain(unread_nodes).map(|(_, error)| error);
        let mut unread: Option<Error> = unread_cells.chain(unread_plan).next();
        let mut configurations = Vec::new();
        let mut versions: Vec<Version> = plan.stable.iter().cloned().collect();
        versions.extend(plan.candidate.iter().map(|candidate| candidate.version.clone()));
        if versions.is_empty() {
            // The first one was taken back, and there is none to go back to: nodes run it on.
            let all = cells::load_all::<configurations::VersionInfo>(journal, "versions/").await?;
            let newest = all.into_iter().map(|(info, _)| info).max_by_key(|info| info.number);
            versions.extend(newest.map(|info| info.version()));
        }
        for version in &versions {
            let known = before.configurations.iter().find(|(known, _)| known.hash == version.hash);
            let snapshot = match known {
                Some((_, snapshot)) => Ok(Arc::clone(snapshot)),
                None => configurations::parsed(journal, version).await.map(Arc::new),
            };
            match snapshot {
                Ok(snapshot) => configurations.push((version.clone(), snapshot)),
                // Its sites are not known here then; who is who is known all the same.
                Err(error) => unread = Some(error),
            }
        }
        let is_whole = is_whole && configurations.len() == versions.len();
        let mut picture = Picture {
            tokens: tokens.into_iter().map(|token| (token.hash.clone(), Arc::new(token))).collect(),
            nodes: nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
            unreadable_nodes,
            plan,
            is_whole,
            configurations,
        };
        let mut shown = self.picture.write();
        shown.gone.retain(|(at, _)| *at >= began);
        shown.gone.iter().for_each(|(_, hash_or_key)| picture.leave_out(hash_or_key));
        shown.picture = Arc::new(picture);
        drop(shown);
        if unread.is_none() {
            *read = Some(began);
        }
        Ok(unread)
    }
}

impl Picture {
    fn leave_out(&mut self, hash_or_key: &str) {
        self.tokens.remove(hash_or_key);
        self.nodes.retain(|_, node| node.key != hash_or_key);
    }

    /// The configurations that nodes may run now: what is stable first.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> + Clone {
        self.configurations.iter().map(|(_, snapshot)| &**snapshot)
    }

    /// What is stable, with its number; before that, the first to be rolled out. `None` when there is none, or it could not be read.
    pub(crate) fn in_force(&self) -> Option<(u64, &Snapshot)> {
        self.configurations.first().map(|(version, snapshot)| (version.number, &**snapshot))
    }

    pub(crate) fn has_site(&self, name: &str) -> bool {
        self.snapshots().any(|snapshot| snapshot.site_named(name).is_some())
    }

    pub(crate) fn site_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.snapshots().flat_map(|snapshot| &snapshot.sites).map(|site| &*site.name)
    }

    /// PoPs of these configurations, and those that nodes stand in.
    pub(crate) fn pop_names(&self) -> impl Iterator<Item = &str> + Clone {
        let configured = self.snapshots().flat_map(|snapshot| &snapshot.routing.pops).map(|pop| &*pop.name);
        configured.chain(self.nodes.values().map(|node| &*node.pop).filter(|pop| !pop.is_empty()))
    }
}
