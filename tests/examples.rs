//! The examples of the client, as its users run them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    binary,
    process::{Broker, Watchdog},
};

/// One that runs.
struct Example {
    child: Child,
    watchdog: Watchdog,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Example {
    fn start(name: &str, broker: &Broker) -> Example {
        let mut command = Command::new(binary::example(name));
        command.arg(format!("riverrun://{}", broker.address)).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Example { watchdog: Watchdog::over(&child), child, lines }
    }

    /// What it prints, up to the first line with `part` in it.
    fn until(&mut self, part: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in &mut self.lines {
            seen.push(line.unwrap());
            if seen.last().unwrap().contains(part) {
                return seen;
            }
        }
        panic!("no `{part}` in {:#?}", &seen[seen.len().saturating_sub(20)..]);
    }

    /// It ends, by itself or after Ctrl-C, and well; what it still printed.
    fn end(mut self, interrupted: bool) -> Vec<String> {
        if interrupted {
            kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        }
        let rest: Vec<String> = self.lines.map(Result::unwrap).collect();
        let status = self.child.wait().unwrap();
        drop(self.watchdog);
        assert!(status.success(), "{status}: {rest:#?}");
        rest
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn every_example_does_what_it_says() {
    let broker = Broker::start();
    let all = Example::start("produce", &broker).end(false);
    assert_eq!(all.first().unwrap(), "created topic `orders`");
    assert_eq!(all.last().unwrap(), "100000 records are on disk");

    let mut group = Example::start("consume_group", &broker);
    group.until("lag 0");
    group.end(true);
    let all = Example::start("admin", &broker).end(false);
    assert!(all.iter().any(|line| line.starts_with("partition 5: 0..")), "{all:#?}");
    assert!(all.iter().any(|line| line.starts_with("group `billing`")), "{all:#?}");
    let all = Example::start("long_poll", &broker).end(false);
    assert_eq!(all.len(), 3, "{all:#?}");
    let all = Example::start("parallel_tracker", &broker).end(false);
    assert_eq!(all.last().unwrap(), "0 records are open");

    let mut jobs = Example::start("work_queue", &broker);
    jobs.until("12 apples");
    jobs.end(true);
    let mut ordered = Example::start("key_ordered_worker", &broker);
    let lines = ordered.until("customer-7 at ");
    assert!(!lines.iter().any(|line| line.contains("out of order")), "{lines:#?}");
    // It never ends by itself.
    ordered.kill();
}
