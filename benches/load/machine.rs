//! What a run was measured on.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{error::Result, files};

/// The machine, the commit and the command of this run.
pub(crate) fn describe(dir: &Path) -> Result<Value> {
    let cpu = files::read_text("/proc/cpuinfo")?;
    let cpu = field(&cpu, "model name").unwrap_or_else(|| "unknown".into());
    let kernel = files::read_text("/proc/sys/kernel/osrelease")?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    Ok(json!({
        "cpu": cpu,
        "cores": std::thread::available_parallelism()?.get(),
        "memory_mib": memory("MemTotal")? >> 20,
        "kernel": kernel.trim(),
        "file_system": file_system(dir)?,
        "commit": commit(),
        "command": format!("load {}", arguments.join(" ")),
    }))
}

/// Bytes that the kernel tells under `name`, as `MemTotal` and `MemFree`; 0 when it tells none.
pub(crate) fn memory(name: &str) -> Result<u64> {
    let told = field(&files::read_text("/proc/meminfo")?, name);
    let kib = told.and_then(|told| told.trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}

/// The file system that holds `dir`.
pub(crate) fn file_system(dir: &Path) -> Result<String> {
    let mounts = files::read_text("/proc/self/mounts")?;
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(point).then_some((point.len(), kind))
    });
    // Of two mounts on one point the later covers the earlier, as `max_by_key` takes the last.
    Ok(holding.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned())
}

/// The value behind `name` in a file of `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit measured; marked when the tree differs from it.
fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) | Err(_) => "unknown".into(),
    }
}
