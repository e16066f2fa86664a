//! Runs the steps of the check in order, cheap ones first, and stops at the first that fails.
//!
//! Tests come last, and after them the harnesses, so that the result lines stand at the end, above a short summary.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{compare, count, generated, prove, tidy, tour};

/// One step: its name and what it does.
struct Step {
    name: &'static str,
    action: Action,
}

/// What a step does.
enum Action {
    /// The source rules, in this process.
    Tidy,
    /// Generated pages against what the binary prints.
    Generated,
    /// The README's commands.
    Tour,
    /// Instructions of the hot paths.
    Count,
    /// The harnesses, at the size of the check.
    Prove,
    /// Cargo with these arguments and extra environment.
    Cargo(Vec<String>, Option<(&'static str, &'static str)>),
}

/// The harnesses of the check: all but `miri`, which needs a toolchain of its own.
const PROVED: [&str; 14] = [
    "wait", "checker", "sim", "flip", "kill", "points", "power", "inject", "full", "net", "pause",
    "clock", "fuzz", "planted",
];

/// Runs every step; `folder` narrows cargo's part to one crate.
pub(crate) fn run(root: &Path, folder: Option<&str>) -> Result<(), String> {
    let packages = match folder {
        None => vec!["--workspace".to_owned()],
        Some(folder) => vec!["--package".to_owned(), package_name(root, folder)?],
    };
    let mut times = Vec::new();
    for step in steps(&packages, folder.is_none()) {
        println!("\n=== {}", step.name);
        let started = Instant::now();
        let result = step.action.run(root);
        let elapsed = started.elapsed();
        times.push((step.name, elapsed));
        if let Err(why) = result {
            print_times(&times);
            return Err(format!("step `{}` failed: {why}", step.name));
        }
    }
    print_times(&times);
    println!("check: all green");
    Ok(())
}

/// The steps; those that look at the whole house only when `whole`.
fn steps(packages: &[String], whole: bool) -> Vec<Step> {
    let cargo = |first: &[&str], last: &[&str], env| {
        let words = first.iter().map(|word| (*word).to_owned());
        let last = last.iter().map(|word| (*word).to_owned());
        Action::Cargo(words.chain(packages.iter().cloned()).chain(last).collect(), env)
    };
    let fmt = Action::Cargo(vec!["fmt".into(), "--all".into(), "--check".into()], None);
    let comparison = ["fmt", "--check", "--manifest-path", compare::MANIFEST];
    let comparison = Action::Cargo(comparison.map(str::to_owned).to_vec(), None);
    let lints = ["--all-targets", "--locked", "--", "-D", "warnings"];
    // The pages are for builders: they show private items, so links to them are no mistake.
    let warnings = Some(("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"));
    let mut steps = vec![
        Step { name: "format", action: fmt },
        Step { name: "format of the comparison", action: comparison },
        Step { name: "tidy", action: Action::Tidy },
        Step { name: "clippy", action: cargo(&["clippy"], &lints, None) },
        Step {
            name: "docs",
            action: cargo(
                &["doc", "--no-deps", "--document-private-items"],
                &["--locked"],
                warnings,
            ),
        },
    ];
    if whole {
        steps.push(Step { name: "pages", action: Action::Generated });
        steps.push(Step { name: "tour", action: Action::Tour });
    }
    steps.push(Step {
        name: "tests",
        action: cargo(&["test"], &["--locked", "--no-fail-fast"], None),
    });
    if whole {
        steps.extend(traces());
        steps.push(Step { name: "count", action: Action::Count });
        steps.push(Step { name: "prove", action: Action::Prove });
    }
    steps
}

/// The one feature of the binary that is off in what the other steps build. Of what it needs only the last crate is built anew.
fn traces() -> [Step; 2] {
    let of = |first: &str, last: &[&str]| {
        let words = [first, "--package", "riverrun-cli", "--features", "otlp", "--locked"];
        Action::Cargo(words.iter().chain(last).map(|word| (*word).to_owned()).collect(), None)
    };
    [
        Step {
            name: "clippy of otlp",
            action: of("clippy", &["--all-targets", "--", "-D", "warnings"]),
        },
        Step { name: "tests of otlp", action: of("test", &["--bin", "riverrun", "serve::otlp::"]) },
    ]
}

impl Action {
    fn run(&self, root: &Path) -> Result<(), String> {
        match self {
            Action::Tidy => tidy::run(root),
            Action::Generated => generated::check(root),
            Action::Tour => tour::run(root),
            Action::Count => count::run(root, false),
            Action::Prove => prove::run(root, &PROVED),
            Action::Cargo(arguments, env) => cargo(root, arguments, *env),
        }
    }
}

/// Cargo, as if it was called from a shell: what it tells this program of its package would make build scripts that look
/// at it run again, and all that hangs on them would be built once more.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let is_ours =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command
}

/// Runs cargo with its output going straight to the terminal.
pub(crate) fn cargo(
    root: &Path,
    arguments: &[String],
    env: Option<(&'static str, &'static str)>,
) -> Result<(), String> {
    println!("cargo {}", arguments.join(" "));
    let status = cargo_command()
        .args(arguments)
        .envs(env)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo ended with {status}")) }
}

/// The package in folder `folder`.
fn package_name(root: &Path, folder: &str) -> Result<String, String> {
    let path = root.join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&path)
        .map_err(|_| format!("no crate in folder `{folder}`; name one as its folder is named"))?;
    let manifest = tidy::Manifest::parse(&text);
    manifest.name.ok_or_else(|| format!("`{folder}/Cargo.toml` has no package name"))
}

fn print_times(times: &[(&str, Duration)]) {
    println!();
    for (name, elapsed) in times {
        println!("{name:>24}  {:>7.1} s", elapsed.as_secs_f64());
    }
}
