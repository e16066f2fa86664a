//! Walks the tour of the README: runs its commands against a fresh build and compares what they print.
//!
//! A `console` block is a script: a line that begins with `$ ` is a command, the lines below it are what
//! it printed. The broker is started in the background where the tour starts it; every other command
//! runs to its end in a shell. Outputs are compared in *shape*: numbers, ids and times differ from run
//! to run, words do not.
//!
//! The tour runs in a folder of its own, on a free port. It ends only processes that it started.

mod shape;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::check::cargo_command;

/// The command that starts the broker in the README.
const SERVE: &str = "cargo run --release -- serve";
/// Where the README's reader finds the binary.
const BINARY: &str = "target/release/riverrun";
/// Longest wait for a broker to print what the tour says it prints.
const DEADLINE: Duration = Duration::from_secs(60);

/// One command of the tour and what the README says it prints.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Line in the README, from 1.
    line: usize,
    command: String,
    expected: Vec<String>,
}

/// Builds the binary and walks the tour.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let readme = fs::read_to_string(root.join("README.md"))
        .map_err(|error| format!("README.md: {error}"))?;
    let steps = steps(&readme);
    if steps.is_empty() {
        return Err("the README has no tour: no ```console block with a `$ ` line".to_owned());
    }
    let binary = build(root)?;
    let mut walk = Walk::prepare(root, &binary)?;
    let result = steps.iter().try_for_each(|step| {
        println!("$ {}", step.command);
        walk.step(step).map_err(|why| format!("README.md:{}: `{}`: {why}", step.line, step.command))
    });
    walk.clear();
    result?;
    println!("tour: {} commands print what the README says", steps.len());
    Ok(())
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let arguments = [
        "build",
        "--locked",
        "--package",
        "riverrun-cli",
        "--message-format",
        "json-render-diagnostics",
    ];
    let output = cargo_command()
        .args(arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executable = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split('"').next()
    });
    executable.next_back().map(PathBuf::from).ok_or_else(|| "the binary was not built".to_owned())
}

/// Reads the steps out of the `console` blocks.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (index, line) in readme.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { line: index + 1, command: command.to_owned(), expected: Vec::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| inside) {
            step.expected.push(line.to_owned());
        }
    }
    steps
}

/// Where the tour runs.
struct Walk {
    folder: PathBuf,
    /// Where the broker listens, once it was started.
    address: Option<String>,
    broker: Option<Child>,
}

impl Walk {
    /// A folder with what the tour finds in a clone: the binary on the path, and the licence to send.
    fn prepare(root: &Path, binary: &Path) -> Result<Walk, String> {
        let folder = std::env::temp_dir().join(format!("riverrun-tour-{}", std::process::id()));
        let made = fs::create_dir_all(folder.join("target/release"))
            .and_then(|()| fs::copy(binary, folder.join(BINARY)))
            .and_then(|_| fs::copy(root.join("LICENSE"), folder.join("LICENSE")));
        made.map_err(|error| format!("cannot prepare `{}`: {error}", folder.display()))?;
        Ok(Walk { folder, address: None, broker: None })
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let printed = match step.command.strip_prefix(SERVE) {
            Some(arguments) => self.serve(arguments.trim(), &step.expected)?,
            None if step.command.starts_with("export ") => return Ok(()),
            None => self.shell(&step.command)?,
        };
        shape::compare(&step.expected, &printed)
    }

    /// Starts the broker and takes as many lines as the tour shows.
    fn serve(&mut self, arguments: &str, expected: &[String]) -> Result<Vec<String>, String> {
        self.stop();
        let listen = self.address.clone().unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let mut command = Command::new(BINARY);
        command.arg("serve").args(arguments.split_whitespace()).args([
            "--listen",
            &listen,
            "--http-listen",
            "127.0.0.1:0",
        ]);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        self.broker = Some(child);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Once the tour has seen enough nobody listens; the pipe is still emptied.
                sender.send(line).ok();
            }
        });
        let mut printed = Vec::new();
        while printed.len() < expected.len() {
            printed.push(
                receiver
                    .recv_timeout(DEADLINE)
                    .map_err(|_| format!("printed only {printed:#?}"))?,
            );
        }
        let address = printed.iter().find_map(|line| line.trim().strip_prefix("listening"));
        self.address = address.and_then(|line| line.split_whitespace().next()).map(str::to_owned);
        // The README's broker listens where commands look by default, ours does not.
        let option = format!(" --server {}", self.address.as_deref().unwrap_or_default());
        // What a file system keeps depends on where the tour runs.
        let durability = |line: &str| line.trim_start().starts_with("durability  fsync:");
        let told = printed.into_iter().zip(expected).map(|(line, wanted)| {
            let is_told = durability(&line) && durability(wanted);
            if is_told { wanted.clone() } else { line.replace(&option, "") }
        });
        Ok(told.collect())
    }

    fn shell(&mut self, command: &str) -> Result<Vec<String>, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", self.folder.join("target/release").display()))
            .env("RIVERRUN_SERVER", self.address.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot start bash: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Ends the broker if the tour has not done it.
    fn stop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            broker.kill().ok();
            broker.wait().ok();
        }
    }

    fn clear(&mut self) {
        self.stop();
        fs::remove_dir_all(&self.folder).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_commands_of_console_blocks() {
        let readme = "text\n```console\n$ a b\none\ntwo\n$ c\n```\n$ not\n```rust\n$ nor\n```\n";
        let found = steps(readme);
        let step = |line, command: &str, expected: &[&str]| Step {
            line,
            command: command.to_owned(),
            expected: expected.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(found, [step(3, "a b", &["one", "two"]), step(6, "c", &[])]);
    }
}
