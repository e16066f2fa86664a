//! What a command shows on a terminal and nowhere else.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{
    binary,
    process::{Broker, Watchdog},
};

/// A terminal: the end that a command writes to, and the one that a user looks at.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let path = std::ffi::OsStr::from_bytes(name.to_bytes());
    let slave = OpenOptions::new().read(true).write(true).open(path).unwrap();
    (slave, File::from(master))
}

#[test]
fn produce_shows_its_rate_on_a_terminal() {
    let broker = Broker::start();
    broker.call(&["topic", "create", "t"]).ok();
    let (slave, mut master) = terminal();
    let mut command = Command::new(binary::path());
    command.args(["produce", "t", "--server", &broker.address]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(slave);
    let mut child = command.spawn().unwrap();
    // The command alone holds the end it writes to.
    drop(command);
    let _watchdog = Watchdog::over(&child);
    let mut input = child.stdin.take();
    input.as_mut().unwrap().write_all(&b"a line\n".repeat(10_000)).unwrap();

    let (mut all, mut some) = (String::new(), [0; 4096]);
    // At the end of the last writer a terminal answers with an error.
    while let Ok(count @ 1..) = master.read(&mut some) {
        all.push_str(&String::from_utf8_lossy(&some[..count]));
        // The rate was seen, so the input may end.
        if all.contains("iB/s") {
            drop(input.take());
        }
    }
    assert!(child.wait().unwrap().success(), "{all}");
    assert!(all.contains("wrote 10,000 records"), "{all}");
}
