//! `strace`: makes calls of another program fail, and writes down which.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// One call as written down.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: String,
    /// The whole line, with the paths of descriptors.
    pub(super) text: String,
    pub(super) injected: bool,
}

/// Why it cannot be used here, if so.
pub(super) fn usable() -> Result<(), String> {
    let tried = Command::new("strace")
        .args(["-f", "-D", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync", "true"])
        .output()
        .map_err(|error| format!("no strace: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&tried.stderr);
    Err(format!("strace may not trace here: {}", errors.trim()))
}

fn words(log: &Path, call: &str, fault: Option<&str>) -> Vec<String> {
    let mut words: Vec<String> = ["-f", "-y", "-s", "0", "-o"].map(str::to_owned).into();
    words.push(log.to_string_lossy().into_owned());
    words.extend(["-e".to_owned(), format!("trace={call}")]);
    if let Some(fault) = fault {
        words.extend(["-e".to_owned(), format!("inject={call}:{fault}")]);
    }
    words
}

/// Words before a program that is to be traced from its start on. The program keeps its own process id.
pub(super) fn around(log: &Path, call: &str, fault: Option<&str>) -> Vec<String> {
    let first = ["strace", "-D", "--seccomp-bpf"].map(str::to_owned);
    first.into_iter().chain(words(log, call, fault)).collect()
}

/// Traces a process that runs, from the return on.
pub(super) fn attach(
    pid: u32,
    log: &Path,
    call: &str,
    fault: Option<&str>,
) -> Result<Child, String> {
    let mut child = Command::new("strace")
        .args(words(log, call, fault))
        .args(["-p", &pid.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let attached = lines.by_ref().find(|line| line.contains("attached"));
    std::thread::spawn(move || lines.count());
    attached.map(|_| child).ok_or_else(|| "strace did not attach".to_owned())
}

/// The calls in a log.
pub(super) fn read(log: &Path) -> Vec<Call> {
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse::<u32>() else { continue };
        let rest = rest.trim();
        if let Some(first) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, first.to_owned());
            continue;
        }
        let text = match rest.strip_prefix("<... ") {
            Some(end) => begun.remove(&thread).unwrap_or_default() + end,
            None => rest.to_owned(),
        };
        let Some((name, _)) = text.split_once('(') else { continue };
        let (name, injected) = (name.to_owned(), text.contains("(INJECTED)"));
        calls.push(Call { name, text, injected });
    }
    calls
}
