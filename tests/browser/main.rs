//! The browser example of the documentation in a real headless Chromium, against the real binary: the network is cut and
//! restored, the broker is killed and started again, and every column of the page has every record once.
//!
//! Chromium comes by `npm`, by the lock file in `tests/browser`. Where it cannot be had the test says so and checks nothing.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "checks touch files, clocks and processes, and stop at the first surprise"
)]

#[path = "../support/binary.rs"]
#[expect(dead_code, reason = "the other checks use the rest of it")]
mod binary;
mod chromium;
mod log;
#[path = "../support/npm.rs"]
mod npm;
mod page;
#[path = "../support/process.rs"]
#[expect(dead_code, reason = "the other test binary uses what this one does not")]
mod process;

use std::{sync::atomic::Ordering, thread};

use chromium::Program;
use log::Log;
use page::Page;
use process::Broker;
use riverrun_tests::proxy::{Fault, Proxy, Way};

/// A page from a file has no origin, and says so by this word.
const SETTINGS: &str = "[http]\ncors_origins = [\"null\"]\n";
/// Records of each part of the story.
const SOME: usize = 60;
/// So many of them are acknowledged before the broker is killed.
const BEFORE_KILL: usize = 20;

#[test]
fn every_column_shows_every_record_once_whatever_becomes_of_network_and_broker() {
    let program = match Program::installed() {
        Ok(program) => program,
        Err(reason) => return npm::skip("the browser example in Chromium", &reason),
    };
    let mut broker = Broker::start_with(SETTINGS);
    let log = Log::new(broker.web_address.parse().unwrap());
    let network = Proxy::start(log.broker(), 1).unwrap();
    let mut page = Page::open(&program, network.address());
    page.is_connected();
    log.append(SOME);
    page.shows(&log.read());
    page.sends_by_itself();
    page.shows(&log.read());

    page.goes_offline();
    log.append(SOME);
    page.goes_online();
    page.shows(&log.read());

    // What is on its way is lost without a word; the connections end only when the network is back.
    network.set(Fault::Swallow(Way::Down), 100);
    log.append(SOME);
    Log::until(|| network.counts().bytes_swallowed.load(Ordering::Relaxed) > 0);
    network.heal();
    page.shows(&log.read());

    let stop = |broker: &mut Broker| assert!(broker.stop().success());
    for end in [Broker::kill, Broker::kill, stop] {
        let before = log.acknowledged().len();
        thread::scope(|scope| {
            let producing = scope.spawn(|| log.append(SOME));
            Log::until(|| log.acknowledged().len() >= before + BEFORE_KILL);
            end(&mut broker);
            broker.restart();
            producing.join().unwrap();
        });
        page.shows(&log.read());
    }

    log.has_what_was_acknowledged();
    page.is_content();
}
