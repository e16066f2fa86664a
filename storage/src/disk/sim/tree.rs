//! The simulated directory tree: names that processes see and names a power loss leaves.
//!
//! Every change of a name is a pending operation until the directories it touches were synced. A
//! rename is one operation even across directories: it is seen whole or not at all, and it is surely
//! durable once both directories were synced. Directories have identities, so a file made durable in
//! a directory whose own name was never synced is unreachable after the power loss.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::fate::{CrashPolicy, Fate, NameOrder};

/// Identity of a file or directory.
pub(super) type NodeId = u64;
/// The root directory.
pub(super) const ROOT: NodeId = 0;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    File(NodeId),
    Dir(NodeId),
}

/// Names of one directory.
type Names = BTreeMap<String, Child>;

/// One name that an operation sets (`Some`) or removes (`None`).
#[derive(Clone, Debug)]
struct Step {
    dir: NodeId,
    name: String,
    child: Option<Child>,
}

/// A change of names that is seen whole or not at all.
#[derive(Clone, Debug)]
struct NameChange {
    steps: Vec<Step>,
    /// Directories that were synced since.
    synced: BTreeSet<NodeId>,
    /// A directory sync failed over it: no later sync is believed.
    lost: bool,
}

/// Live and durable names.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    live: BTreeMap<NodeId, Names>,
    durable: BTreeMap<NodeId, Names>,
    /// Changes that are not surely durable, oldest first.
    pending: Vec<NameChange>,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = BTreeMap::from([(ROOT, Names::new())]);
        Tree { live: root.clone(), durable: root, pending: Vec::new() }
    }

    /// Changes of names whose fate a power loss would decide.
    pub(super) fn dirty_units(&self) -> u64 {
        self.pending.len() as u64
    }

    /// The directory that `names` lead to.
    pub(super) fn dir(&self, names: &[&str]) -> io::Result<NodeId> {
        names.iter().try_fold(ROOT, |dir, name| match self.child(dir, name) {
            Some(Child::Dir(id)) => Ok(id),
            Some(Child::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    /// What `name` in `dir` stands for.
    pub(super) fn child(&self, dir: NodeId, name: &str) -> Option<Child> {
        self.live.get(&dir).and_then(|names| names.get(name)).copied()
    }

    /// The live names of `dir`.
    pub(super) fn names(&self, dir: NodeId) -> &Names {
        self.live.get(&dir).expect("a directory that was looked up")
    }

    /// Adds a new name; the caller knows it is free.
    pub(super) fn link(&mut self, dir: NodeId, name: &str, child: Child) {
        if let Child::Dir(id) = child {
            self.live.insert(id, Names::new());
            self.durable.insert(id, Names::new());
        }
        self.change(vec![Step { dir, name: name.to_owned(), child: Some(child) }]);
    }

    /// Removes a name that exists.
    pub(super) fn unlink(&mut self, dir: NodeId, name: &str) {
        self.change(vec![Step { dir, name: name.to_owned(), child: None }]);
    }

    /// Moves the name `from` to `to`, replacing what stood there.
    pub(super) fn rename(&mut self, from: (NodeId, &str), to: (NodeId, &str)) -> io::Result<()> {
        let moved = self.child(from.0, from.1).ok_or(io::ErrorKind::NotFound)?;
        match (moved, self.child(to.0, to.1)) {
            (Child::File(_), Some(Child::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Child::Dir(_), Some(Child::File(_))) => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            (Child::Dir(_), Some(Child::Dir(id))) if !self.names(id).is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            (Child::File(_), Some(Child::File(_)) | None)
            | (Child::Dir(_), Some(Child::Dir(_)) | None) => {}
        }
        if from == to {
            return Ok(());
        }
        self.change(vec![
            Step { dir: from.0, name: from.1.to_owned(), child: None },
            Step { dir: to.0, name: to.1.to_owned(), child: Some(moved) },
        ]);
        Ok(())
    }

    /// A directory sync that succeeded.
    pub(super) fn sync(&mut self, dir: NodeId) {
        let touches = |change: &NameChange| change.steps.iter().any(|step| step.dir == dir);
        if !self.pending.iter().any(touches) {
            return;
        }
        for change in &mut self.pending {
            if change.steps.iter().any(|step| step.dir == dir) {
                change.synced.insert(dir);
            }
        }
        let mut due: Vec<bool> = self.pending.iter().map(NameChange::is_durable).collect();
        self.pull_in_earlier(&mut due);
        let mut due = due.into_iter();
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if due.next() == Some(true) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// Syncs every directory.
    pub(super) fn sync_all(&mut self) {
        let dirs: Vec<NodeId> = self.live.keys().chain(self.durable.keys()).copied().collect();
        dirs.into_iter().for_each(|dir| self.sync(dir));
    }

    /// A directory sync that failed: what it should have made durable stays in doubt for ever.
    pub(super) fn fail_sync(&mut self, dir: NodeId) {
        for change in &mut self.pending {
            change.lost |= change.steps.iter().any(|step| step.dir == dir);
        }
    }

    /// The tree as it lies on the medium after a power loss.
    pub(super) fn after_power_loss(&self, policy: CrashPolicy) -> Tree {
        let mut fate = Fate::new(policy.names);
        let mut names = self.durable.clone();
        match policy.name_order {
            NameOrder::Journal => {
                let kept = fate.prefix(self.pending.len());
                self.pending[..kept].iter().for_each(|change| change.apply(&mut names));
            }
            NameOrder::Any => {
                let kept = self.pending.iter().filter(|_| fate.keeps());
                kept.for_each(|change| change.apply(&mut names));
            }
        }
        Tree { live: names.clone(), durable: names, pending: Vec::new() }.without_unreachable()
    }

    /// Files that a name, now or after some power loss, can lead to.
    pub(super) fn files(&self) -> BTreeSet<NodeId> {
        let pending = self.pending.iter().flat_map(|change| &change.steps);
        let named = self.live.values().chain(self.durable.values()).flat_map(Names::values);
        named.chain(pending.filter_map(|step| step.child.as_ref())).filter_map(file_id).collect()
    }

    /// Files that have a live name.
    pub(super) fn live_files(&self) -> BTreeSet<NodeId> {
        self.live.values().flat_map(Names::values).filter_map(file_id).collect()
    }

    fn change(&mut self, steps: Vec<Step>) {
        let change = NameChange { steps, synced: BTreeSet::new(), lost: false };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// A change becomes durable only together with every earlier one of the same name or node.
    fn pull_in_earlier(&self, due: &mut [bool]) {
        for later in (0..due.len()).rev() {
            if due[later] {
                let (earlier, rest) = self.pending.split_at(later);
                for (index, change) in earlier.iter().enumerate() {
                    due[index] |= change.shares_name_with(&rest[0]);
                }
            }
        }
    }

    fn without_unreachable(mut self) -> Tree {
        let mut reached = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            for child in self.live.get(&dir).into_iter().flat_map(Names::values) {
                if let Child::Dir(id) = child
                    && reached.insert(*id)
                {
                    open.push(*id);
                }
            }
        }
        self.live.retain(|dir, _| reached.contains(dir));
        self.durable = self.live.clone();
        self
    }
}

impl NameChange {
    fn is_durable(&self) -> bool {
        !self.lost && self.steps.iter().all(|step| self.synced.contains(&step.dir))
    }

    fn apply(&self, dirs: &mut BTreeMap<NodeId, Names>) {
        for step in &self.steps {
            let names = dirs.entry(step.dir).or_default();
            match step.child {
                Some(child) => names.insert(step.name.clone(), child),
                None => names.remove(&step.name),
            };
        }
    }

    fn shares_name_with(&self, later: &NameChange) -> bool {
        let same = |a: &Step, b: &Step| a.dir == b.dir && a.name == b.name;
        self.steps.iter().any(|a| later.steps.iter().any(|b| same(a, b)))
    }
}

fn file_id(child: &Child) -> Option<NodeId> {
    match child {
        Child::File(id) => Some(*id),
        Child::Dir(_) => None,
    }
}
