//! Members and workers in processes of their own, which write down what they do before they do it.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use riverrun_tests::member::Line;
use rustix::process::{Pid, Signal, kill_process};

use crate::net::{
    crowd::{GROUP, PARTITIONS, TOPIC, WORK, in_time},
    ledger::Ledger,
    server::{beside, text},
};

/// The names of the members.
pub(super) const MEMBERS: [&str; 2] = ["a", "b"];

/// The processes.
pub(super) struct Staff {
    folder: PathBuf,
    broker: String,
    children: Vec<Child>,
}

impl Staff {
    /// Nobody yet; logs go to `folder`.
    pub(super) fn new(folder: &Path, broker: SocketAddr) -> Staff {
        let folder = folder.to_path_buf();
        Staff { folder, broker: broker.to_string(), children: Vec::new() }
    }

    /// One more worker; gives its number.
    pub(super) fn worker(&mut self) -> Result<usize, String> {
        self.hire([WORK, "unordered"], "work", "healed")
    }

    /// One more member; gives its number.
    pub(super) fn member(&mut self, name: &str) -> Result<usize, String> {
        self.hire([GROUP, "member"], "group", name)
    }

    fn hire(&mut self, words: [&str; 2], log: &str, last: &str) -> Result<usize, String> {
        let errors = File::options().append(true).create(true).open(self.folder.join("errors"));
        let child = Command::new(beside("worker")?)
            .args([&self.broker, TOPIC])
            .args(words)
            .arg(self.folder.join(log))
            .arg(last)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors.map_err(text)?)
            .spawn()
            .map_err(text)?;
        self.children.push(child);
        Ok(self.children.len() - 1)
    }

    pub(super) fn signal(&self, number: usize, signal: Signal) -> Result<(), String> {
        let child = self.children.get(number).ok_or("no such process")?;
        kill_process(Pid::from_child(child), signal).map_err(text)
    }

    /// Waits until all members and a worker are at work.
    pub(super) async fn until_busy(&self) -> Result<(), String> {
        let busy = |lines: &[Line]| MEMBERS.iter().all(|name| has_received(lines, name));
        let wait = async {
            while !busy(&self.lines()) || self.done().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        in_time("work for everybody", wait).await
    }

    /// Waits until one member, from now on, received of every partition: nobody else owns one.
    pub(super) async fn until_alone(&self, member: usize) -> Result<(), String> {
        let before = self.lines().len();
        let alone = |lines: &[Line]| {
            let own = lines.iter().filter_map(|line| match line {
                Line::Got { member: name, partition, .. } if name == MEMBERS[member] => {
                    Some(*partition)
                }
                Line::Got { .. }
                | Line::Try { .. }
                | Line::Committed { .. }
                | Line::Fenced { .. } => None,
            });
            own.collect::<HashSet<u32>>().len() == usize::try_from(PARTITIONS).unwrap_or(0)
        };
        let wait = async {
            while !alone(self.lines().get(before..).unwrap_or_default()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        in_time("the partitions of a member that was paused", wait).await
    }

    /// Waits until a member receives again, from now on.
    pub(super) async fn until_back(&self, member: usize) -> Result<(), String> {
        let before = self.lines().len();
        let wait = async {
            while !has_received(self.lines().get(before..).unwrap_or_default(), MEMBERS[member]) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let what = format!("a batch for a member that was paused {}", self.errors());
        in_time(&what, wait).await
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.folder.join("errors")).unwrap_or_default()
    }

    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.folder.join("group")).unwrap_or_default();
        whole(&text).filter_map(Line::parse).collect()
    }

    /// Numbers that the workers did.
    fn done(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.folder.join("work")).unwrap_or_default();
        whole(&text).filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }

    /// Ends all of them.
    pub(super) fn end(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Puts what they did into the ledger; gives how often a partition went to another member.
    pub(super) fn tell(&self, ledger: &mut Ledger) -> Result<usize, String> {
        for number in self.done() {
            ledger.done(number);
        }
        let (mut tries, mut owners, mut moves) = (HashMap::new(), HashMap::new(), 0);
        for line in self.lines() {
            match line {
                Line::Got { member, partition, from, to } => {
                    ledger.receive_range(partition, from, to);
                    let owner = owners.insert(partition, member.clone());
                    moves += usize::from(owner.is_some_and(|owner| owner != member));
                }
                Line::Try { member, serial, partition, offset } => {
                    let before = ledger.before_commit(partition);
                    tries.insert((member, serial), (partition, offset, before));
                }
                Line::Committed { member, serial } => {
                    let key = (member, serial);
                    let (partition, offset, before) = tries.get(&key).ok_or("no try before it")?;
                    ledger.commit(*partition, *offset, *before);
                }
                Line::Fenced { .. } => ledger.fenced += 1,
            }
        }
        let errors = self.errors();
        if !errors.is_empty() {
            ledger.accuse(format!("a client ended: {}", errors.trim()));
        }
        Ok(moves)
    }
}

impl Drop for Staff {
    fn drop(&mut self) {
        self.end();
    }
}

fn has_received(lines: &[Line], name: &str) -> bool {
    lines.iter().any(|line| matches!(line, Line::Got { member, .. } if member == name))
}

/// Lines that were written to their end.
fn whole(text: &str) -> impl Iterator<Item = &str> {
    text.rfind('\n').map_or("", |end| &text[..end]).lines()
}
