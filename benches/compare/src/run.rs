//! The rounds: every peer at every level does every workload once in each, in an order that moves on by one from round to round.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use crate::{
    case::{Case, Size, Workload},
    ceiling::Ceiling,
    clock,
    drive::{self, Figures, Task},
    error::{Error, Result},
    files,
    memory::Memory,
    peer::{Install, Level, Peer, Server},
    process, say,
};

/// Time for a driver to be there before the server it waits for.
const DRIVER_START: Duration = Duration::from_millis(200);

/// What a run is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Whom, in the order of the tables.
    pub(crate) peers: Vec<Peer>,
    /// At which levels.
    pub(crate) levels: Vec<Level>,
    /// What.
    pub(crate) cases: Vec<Case>,
    /// How often.
    pub(crate) rounds: u32,
    /// How large.
    pub(crate) size: Size,
    /// Riverrun's binary.
    pub(crate) riverrun: PathBuf,
    /// Folder on a real disk that is emptied for each server.
    pub(crate) work: PathBuf,
    /// Filled before each measurement.
    pub(crate) memory: Memory,
    /// Folder that keeps what was downloaded.
    pub(crate) cache: PathBuf,
}

/// One peer at one level.
#[derive(Clone, Debug)]
struct Contender {
    install: Install,
    level: Level,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// From 1.
    pub(crate) round: u32,
    /// Whom.
    pub(crate) peer: Peer,
    /// At which level.
    pub(crate) level: Level,
    /// What.
    pub(crate) case: String,
    /// What was measured; nothing when it failed.
    pub(crate) figures: Figures,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// A ceiling in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limit {
    /// From 1.
    pub(crate) round: u32,
    /// Of what.
    pub(crate) ceiling: &'static str,
    /// What was measured.
    pub(crate) figures: Figures,
}

/// A peer or a level of it that was not run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Skip {
    /// Whom.
    pub(crate) peer: &'static str,
    /// At which level, or in which workload, when only one.
    pub(crate) part: Option<String>,
    /// Why.
    pub(crate) reason: String,
}

/// A server that took part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entrant {
    /// Whom.
    pub(crate) peer: Peer,
    /// At which level.
    pub(crate) level: Level,
    /// Version of the server.
    pub(crate) version: String,
    /// What an acknowledgement means.
    pub(crate) acknowledged: &'static str,
    /// The client.
    pub(crate) client: &'static str,
    /// How the server was started, when it was.
    pub(crate) command: String,
    /// Its settings file; empty when it has none.
    pub(crate) settings: String,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    /// Rounds that are over.
    pub(crate) rounds: u32,
    /// Who took part.
    pub(crate) entrants: Vec<Entrant>,
    /// Who did not.
    pub(crate) skipped: Vec<Skip>,
    /// What the machine can do.
    pub(crate) ceilings: Vec<Limit>,
    /// All measurements.
    pub(crate) samples: Vec<Sample>,
}

/// Runs the whole plan, and gives what is measured so far to `keep` after each round: what ends a long run early costs a round, not the run.
pub(crate) fn run(plan: &Plan, mut keep: impl FnMut(&Results) -> Result<()>) -> Result<()> {
    let mut results = Results::default();
    let mut contenders = contenders(plan, &mut results)?;
    for round in 1..=plan.rounds {
        for ceiling in Ceiling::ALL {
            let dir = clean(plan)?;
            let figures = ceiling.measure(&dir, plan.size.quick)?;
            say::ceiling(round, ceiling.name(), &figures);
            results.ceilings.push(Limit { round, ceiling: ceiling.name(), figures });
        }
        for contender in &contenders {
            one_server(plan, round, contender, &mut results)?;
        }
        contenders.rotate_left(1);
        results.rounds = round;
        keep(&results)?;
    }
    files::remove_folder(&plan.work)?;
    Ok(())
}

/// Finds or downloads every peer.
fn contenders(plan: &Plan, results: &mut Results) -> Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    for peer in &plan.peers {
        let mut skip = |part: Option<String>, reason: String| {
            say::skipped(peer.name(), part.as_deref(), &reason);
            results.skipped.push(Skip { peer: peer.name(), part, reason });
        };
        let install = match peer.install(&plan.cache, &plan.riverrun) {
            Ok(install) => install,
            Err(Error::Skipped(reason)) => {
                skip(None, reason);
                continue;
            }
            Err(error) => return Err(error),
        };
        for case in &plan.cases {
            if let Some(reason) = peer.lacks(case.workload) {
                skip(Some(case.title()), reason.to_owned());
            }
        }
        for level in &plan.levels {
            match install.meaning(*level) {
                Ok(acknowledged) => {
                    results.entrants.push(Entrant {
                        peer: *peer,
                        level: *level,
                        version: install.version.clone(),
                        acknowledged,
                        client: peer.client(),
                        command: String::new(),
                        settings: String::new(),
                    });
                    contenders.push(Contender { install: install.clone(), level: *level });
                }
                Err(reason) => skip(Some(level.name().to_owned()), reason.to_owned()),
            }
        }
    }
    Ok(contenders)
}

/// One life of a server: every case on it, one after another. What fails is kept as a failure, and the run goes on.
fn one_server(plan: &Plan, round: u32, who: &Contender, results: &mut Results) -> Result<()> {
    let dir = plan.work.clone();
    let (peer, level) = (who.install.peer, who.level);
    let mut server = match fresh(plan, who) {
        Ok(server) => server,
        Err(error) => {
            for case in &plan.cases {
                results.samples.push(sample(round, who, *case, Err(&error)));
            }
            say::failed(round, &label(who), "start", &error);
            return Ok(());
        }
    };
    let entrants = results.entrants.iter_mut();
    for entrant in entrants.filter(|entrant| (entrant.peer, entrant.level) == (peer, level)) {
        entrant.command = server.process.command_line(&[(&dir, "DIR"), (&plan.cache, "CACHE")]);
        entrant.settings = server.settings.replace(&dir.display().to_string(), "DIR");
    }
    // Topics of failed cases.
    let mut unwritten = Vec::new();
    for case in plan.cases.iter().filter(|case| peer.lacks(case.workload).is_none()) {
        let stage = Stage { plan, who, case: *case, dir: &dir };
        let done = if unwritten.contains(&case.topic()) {
            Err(Error::Wrong("what it reads was not written".into()))
        } else if case.wants_fresh_server() {
            server.end();
            fresh(plan, who).and_then(|started| {
                server = started;
                stage.measure(&mut server)
            })
        } else {
            stage.measure(&mut server)
        };
        match &done {
            Ok(figures) => say::step(round, &label(who), *case, figures),
            Err(error) => {
                say::failed(round, &label(who), &case.title(), error);
                unwritten.push(case.topic());
            }
        }
        results.samples.push(sample(round, who, *case, done.as_ref()));
        if server.process.check().is_err() {
            break;
        }
    }
    Ok(())
}

/// One case on one server.
struct Stage<'a> {
    plan: &'a Plan,
    who: &'a Contender,
    case: Case,
    dir: &'a Path,
}

impl Stage<'_> {
    fn measure(&self, server: &mut Server) -> Result<Figures> {
        server.process.check()?;
        self.plan.memory.fill()?;
        let filled = self.drive(server, self.case.task(self.plan.size))?.wait(self.timeout())?;
        if self.case.workload == Workload::W7 { self.restart(server) } else { Ok(filled) }
    }

    /// Kills the server, starts it again on what it left, and sees how soon the first record comes, and how many there are.
    fn restart(&self, server: &mut Server) -> Result<Figures> {
        server.end();
        let driver = self.drive(server, Task::FirstRecord)?;
        // It is to wait for the server, not the other way round.
        clock::pause(DRIVER_START);
        let (install, level) = (&self.who.install, self.who.level);
        *server = Server::launch(install, level, self.dir, &server.address)?;
        let figures = driver.wait(self.timeout())?;
        let first = figures.get(drive::FIRST_RECORD_AT).copied().unwrap_or(0.0);
        let mut figures = self.drive(server, Task::Count)?.wait(self.timeout())?;
        figures.insert("first_record_ms".into(), (first - server.process.started as f64) / 1e6);
        Ok(figures)
    }

    fn drive(&self, server: &Server, task: Task) -> Result<drive::Driver> {
        drive::launch(&self.who.install.driver(self.dir)?, &self.job(server, task), self.dir)
    }

    fn timeout(&self) -> f64 {
        self.plan.size.timeout_seconds()
    }

    fn job(&self, server: &Server, task: Task) -> drive::Job {
        let (case, peer, size) = (self.case, self.who.install.peer, self.plan.size);
        drive::Job {
            peer,
            level: self.who.level,
            address: server.address.clone(),
            servers: server.process.tree(),
            topic: case.topic(),
            bytes: case.bytes,
            warm_up: size.warm_up(case, peer),
            records: size.records(case, peer),
            task,
        }
    }
}

fn label(who: &Contender) -> String {
    format!("{} {}", who.install.peer.name(), who.level.name())
}

fn sample(
    round: u32,
    who: &Contender,
    case: Case,
    done: std::result::Result<&Figures, &Error>,
) -> Sample {
    Sample {
        round,
        peer: who.install.peer,
        level: who.level,
        case: case.key(),
        figures: done.cloned().unwrap_or_default(),
        failure: done.err().map(ToString::to_string),
    }
}

/// A server on an empty folder.
fn fresh(plan: &Plan, who: &Contender) -> Result<Server> {
    Server::start(&who.install, who.level, &clean(plan)?, &process::free_address()?)
}

/// An empty folder for the next server.
fn clean(plan: &Plan) -> Result<PathBuf> {
    files::remove_folder(&plan.work)?;
    files::make_folder(&plan.work)?;
    plan.memory.fill()?;
    Ok(plan.work.clone())
}
