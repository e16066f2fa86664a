//! FUZZ: bytes that nobody of ours wrote, at every door through which bytes come, chosen by libFuzzer after the code they reach.
//!
//! The targets stand in `tests/fuzz`, one folder of kept inputs each; the program that drives them is built beside this one. What is found
//! lies in `target/prove/found/` and stays there; put into the folder of its target it is looked at by every `cargo test`.

#![expect(clippy::disallowed_methods, reason = "a harness reads files of the source and clocks")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    harness::{Size, Verdict, Violation},
    power::leftovers::abandoned,
};

/// Targets that still find something wrong in files that only a forger makes, contradictions under right checksums: looked at with `--full`
/// and `--minutes`, and not in the check until what they find is mended.
const OPEN: [&str; 2] = ["mark", "segment"];
/// Kept inputs, a folder for each target.
const CORPUS: &str = "tests/fuzz/corpus";
/// Names of folders begin so, and go on with the process.
const PREFIX: &str = "riverrun-fuzz-";
/// Time for one target, in the check and in full.
const CHECK: Duration = Duration::from_secs(20);
const FULL: Duration = Duration::from_secs(600);
/// Largest input, in bytes; that of `tests/fuzz/src/target.rs`.
const INPUT_BYTES_MAX: u32 = 4_096;
/// An input that takes longer hangs.
const HANG_SECONDS: u32 = 30;
/// Address space that the process may have, in KiB. libFuzzer's own limit looks at the highest memory since the process began, and that
/// begins with its parent's: after another harness, with gigabytes that nobody here used.
const ADDRESS_SPACE_KIB_MAX: u32 = 2 << 20;

/// What a run of one target is given.
struct Plan {
    program: PathBuf,
    /// Inputs met on the way, and what is written of the run.
    folder: PathBuf,
    /// Where inputs that break something are kept.
    found: PathBuf,
    limits: Vec<String>,
}

/// A run under way.
struct Run {
    target: String,
    log: PathBuf,
    child: Child,
}

pub(crate) fn run(size: &Size) -> Verdict {
    abandoned(PREFIX).iter().for_each(|folder| drop(fs::remove_dir_all(folder)));
    let targets = match targets() {
        Ok(targets) if !targets.is_empty() => targets,
        Ok(_) | Err(_) => return Verdict::Skipped("not started in the source folder".into()),
    };
    let is_long = size.full || size.time.is_some();
    let (targets, left): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|target| is_long || !OPEN.contains(&target.as_str()));
    let Some(program) = program() else {
        return Verdict::Skipped(
            "no program with coverage counters; `cargo xtask prove fuzz` builds it where there is a C++ compiler, `c++`".into(),
        );
    };
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let folder = match tempfile::Builder::new().prefix(&prefix).tempdir() {
        Ok(folder) => folder,
        Err(error) => return Verdict::Skipped(format!("no temporary folder: {error}")),
    };
    let found =
        program.parent().and_then(Path::parent).unwrap_or(Path::new("target")).join("found");
    let limits = limits(size, targets.len());
    let plan = Plan { program, folder: folder.path().to_owned(), found, limits };
    match plan.all(&targets) {
        Ok(inputs) => {
            let left = if left.is_empty() {
                String::new()
            } else {
                format!(" (not tried: {})", left.join(", "))
            };
            Verdict::Green(format!("{} targets{left}, {inputs} inputs, 0 crashes", targets.len()))
        }
        Err(what) => Verdict::Violation(Violation { what, again: again(size) }),
    }
}

/// Arguments that begin with the same seed for as long.
fn again(size: &Size) -> String {
    let mut words = format!("--seed {}", size.seed);
    if let Some(count) = size.count {
        words.push_str(&format!(" --count {count}"));
    }
    if size.full {
        words.push_str(" --full");
    }
    words
}

/// The targets, by the folders of their inputs.
fn targets() -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(CORPUS)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The program that drives the targets. The build without planted bugs has it; they are switched on by the environment there too.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let folder = own.parent()?;
    let places = [folder.join("fuzz"), folder.parent()?.join("plain/fuzz")];
    places.into_iter().find(|place| place.exists())
}

/// Targets that run at a time.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How long each target runs, in libFuzzer's words.
fn limits(size: &Size, targets: usize) -> Vec<String> {
    let rounds = targets.div_ceil(at_once());
    let usual = if size.full { FULL } else { CHECK };
    let each = size.time.map_or(usual, |all| all / u32::try_from(rounds).unwrap_or(u32::MAX));
    let length = match size.count {
        Some(count) => format!("-runs={count}"),
        None => format!("-max_total_time={}", each.as_secs().max(1)),
    };
    // Seed 0 is a random one there.
    let seed = u32::try_from(size.seed).unwrap_or(u32::MAX).max(1);
    vec![
        length,
        format!("-seed={seed}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={HANG_SECONDS}"),
        "-rss_limit_mb=0".into(),
        "-print_final_stats=1".into(),
    ]
}

impl Plan {
    /// Runs all targets, some at a time; gives the number of inputs. After the first that breaks no further one begins.
    fn all(&self, targets: &[String]) -> Result<u64, String> {
        fs::create_dir_all(&self.found).map_err(|error| error.to_string())?;
        let mut inputs = 0;
        for some in targets.chunks(at_once()) {
            let runs: Vec<Run> =
                some.iter().map(|target| self.start(target)).collect::<Result<_, _>>()?;
            let ends: Vec<_> = runs.into_iter().map(|run| self.end(run)).collect();
            for end in ends {
                inputs += end?;
            }
        }
        Ok(inputs)
    }

    fn start(&self, target: &str) -> Result<Run, String> {
        let failed = |error: std::io::Error| format!("{target}: {error}");
        let met = self.folder.join(target);
        fs::create_dir_all(&met).map_err(failed)?;
        let log = self.folder.join(format!("{target}.log"));
        let output = fs::File::create(&log).map_err(failed)?;
        let limited = format!("ulimit -v {ADDRESS_SPACE_KIB_MAX} && exec \"$0\" \"$@\"");
        let child = Command::new("sh")
            .args(["-c", &limited])
            .arg(&self.program)
            .args(&self.limits)
            .arg(format!("-artifact_prefix={}/{target}-", self.found.display()))
            .arg(&met)
            .arg(Path::new(CORPUS).join(target))
            .env("RIVERRUN_FUZZ", target)
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(failed)?;
        Ok(Run { target: target.to_owned(), log, child })
    }

    fn end(&self, mut run: Run) -> Result<u64, String> {
        let target = &run.target;
        let status = run.child.wait().map_err(|error| format!("{target}: {error}"))?;
        let bytes = fs::read(&run.log).map_err(|error| format!("{target}: {error}"))?;
        let log = String::from_utf8_lossy(&bytes);
        let inputs = log.lines().find_map(|line| {
            line.strip_prefix("stat::number_of_executed_units:")?.trim().parse::<u64>().ok()
        });
        match inputs {
            Some(inputs) if status.success() => Ok(inputs),
            Some(_) | None => Err(format!("{target}: {}", self.told(target, &log, status))),
        }
    }

    /// What a run that broke says: what was seen, which input it was, and how to look at it again.
    fn told(&self, target: &str, log: &str, status: std::process::ExitStatus) -> String {
        let lines: Vec<&str> = log.lines().collect();
        let is_verdict = |line: &&str| {
            line.contains("panicked at")
                || line.contains("memory allocation of")
                || line.contains("ERROR: libFuzzer")
        };
        let seen = lines.iter().position(is_verdict);
        let seen = seen.map_or_else(
            || format!("ended with {status}: {}", lines.last().unwrap_or(&"it said nothing")),
            |at| lines[at..].iter().take(2).copied().collect::<Vec<_>>().join(" "),
        );
        let seen: String = seen.chars().take(500).collect();
        let written = log.lines().find_map(|line| line.split_once("Test unit written to "));
        let Some((_, input)) = written else { return seen };
        let program = self.program.display();
        let replay = format!("replay: RIVERRUN_FUZZ={target} {program} {input}");
        // Small inputs are printed too, for whoever has the output but not the machine.
        let bytes = log.lines().find(|line| line.starts_with("Base64: ")).unwrap_or_default();
        format!("{seen}\n  input: {input} {bytes}\n  {replay}")
    }
}
