//! The topic of the page as a program sees it: what was acknowledged, and what is in the log. HTTP by hand.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// The topic that the page makes.
pub(crate) const TOPIC: &str = "browser";
/// How many partitions the page gives it.
const PARTITIONS: u64 = 2;
/// What has not come by then will not.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// Offsets and values of each partition, in their order.
pub(crate) type Records = BTreeMap<u64, Vec<(u64, String)>>;

/// The log, and what its producer knows.
#[derive(Debug)]
pub(crate) struct Log {
    broker: SocketAddr,
    /// The next number to be sent. One that was not acknowledged is not sent again: it may have been appended.
    next: AtomicU64,
    /// Numbers that were acknowledged.
    acknowledged: Mutex<Vec<u64>>,
}

impl Log {
    pub(crate) fn new(broker: SocketAddr) -> Log {
        Log { broker, next: AtomicU64::new(0), acknowledged: Mutex::default() }
    }

    pub(crate) fn broker(&self) -> SocketAddr {
        self.broker
    }

    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.lock().clone()
    }

    /// Sends numbers, one after the other, until so many more are acknowledged.
    pub(crate) fn append(&self, count: usize) {
        let wanted = self.acknowledged.lock().len() + count;
        Log::until(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let record = json!([{"value": number.to_string(), "partition": number % PARTITIONS}]);
            let path = format!("POST /v1/topics/{TOPIC}/records");
            if self.ask(&path, &record.to_string()).is_ok() {
                self.acknowledged.lock().push(number);
            }
            self.acknowledged.lock().len() >= wanted
        });
    }

    /// Everything that is in the log.
    pub(crate) fn read(&self) -> Records {
        let partition = |partition| (partition, self.read_partition(partition));
        (0..PARTITIONS).map(partition).collect()
    }

    fn read_partition(&self, partition: u64) -> Vec<(u64, String)> {
        let mut records = Vec::new();
        loop {
            let offset = records.last().map_or(0, |(offset, _)| offset + 1);
            let path = format!("/v1/topics/{TOPIC}/partitions/{partition}/records?offset={offset}");
            let answer = self.ask(&format!("GET {path}"), "").unwrap();
            for record in answer["records"].as_array().unwrap() {
                let value = record["value"].as_str().unwrap().to_owned();
                records.push((record["offset"].as_u64().unwrap(), value));
            }
            if answer["next_offset"] == answer["high_watermark"] {
                return records;
            }
        }
    }

    /// Fails unless every number that was acknowledged is in the log once.
    pub(crate) fn has_what_was_acknowledged(&self) {
        let records = self.read();
        for number in self.acknowledged() {
            let number = number.to_string();
            let found = records.values().flatten().filter(|(_, value)| *value == number).count();
            assert_eq!(found, 1, "times that {number} is in the log");
        }
    }

    /// Waits until something is so.
    pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < end, "it did not come to that");
            thread::sleep(PAUSE);
        }
    }

    /// The answer to one request; an error unless it is a good one.
    fn ask(&self, line: &str, body: &str) -> io::Result<Value> {
        let mut socket = TcpStream::connect(self.broker)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let length = body.len();
        write!(
            socket,
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )?;
        let mut reply = String::new();
        socket.read_to_string(&mut reply)?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.starts_with("HTTP/1.1 200 ") {
            Ok(serde_json::from_str(body)?)
        } else {
            Err(io::Error::other(reply))
        }
    }
}
