//! What a killed run of this harness left: brokers, mounts, loop devices, folders. All of it is found by the name of its folder,
//! which has the id of a process that is gone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

use super::volume::call;

/// Removes what runs left whose process is gone and whose folders begin so.
pub(crate) fn sweep(prefix: &str) {
    for folder in abandoned(prefix) {
        end_brokers(&folder);
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(mount).starts_with(&folder) {
                // What resists stays for the next run, as the folder does.
                let _unmounted = call("umount", &["--lazy", mount]);
            }
        }
        for device in devices_of(&folder) {
            let _released = call("losetup", &["--detach", &device]);
        }
        let _removed = fs::remove_dir_all(&folder);
    }
}

/// Folders whose names begin so, of runs that are over.
pub(crate) fn abandoned(prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return Vec::new() };
    let folders = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let rest = path.file_name()?.to_str()?.strip_prefix(prefix)?.to_owned();
        let owner: u32 = rest.split('-').next()?.parse().ok()?;
        (!Path::new(&format!("/proc/{owner}")).exists()).then_some(path)
    });
    folders.collect()
}

/// Kills brokers whose data directory lies in `folder`.
pub(crate) fn end_brokers(folder: &Path) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.filter_map(Result::ok) {
        let id = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = id.and_then(Pid::from_raw) else { continue };
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let mut pairs = words.windows(2);
        if pairs.any(|pair| pair[0] == "--data-dir" && Path::new(&*pair[1]).starts_with(folder)) {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// Loop devices of images in `folder`.
fn devices_of(folder: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    let devices = devices.filter_map(|device| {
        let device = device.ok()?;
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let name = device.file_name().to_str()?.to_owned();
        Path::new(backing.trim()).starts_with(folder).then(|| format!("/dev/{name}"))
    });
    devices.collect()
}
