//! The page of the documentation in a browser, and what can be seen on it.

use std::{net::SocketAddr, path::Path};

use serde_json::Value;

use crate::{
    chromium::{Chromium, Program},
    log::{Records, TOPIC},
};

/// The page, from the root of the repository.
const FILE: &str = "docs/examples/browser/index.html";
/// Its columns, by their ids.
const COLUMNS: [&str; 4] = ["short", "long", "events", "socket"];
/// How long the page may take for anything, in milliseconds.
const PATIENCE_MS: u32 = 40_000;

/// The page.
pub(crate) struct Page {
    chromium: Chromium,
    /// Where it was told that the broker is.
    broker: String,
}

impl Page {
    /// Opens it as a file, as a reader would by a double click.
    pub(crate) fn open(program: &Program, broker: SocketAddr) -> Page {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let file = root.join(FILE);
        let broker = format!("http://{broker}");
        let address = format!("file://{}?broker={broker}&topic={TOPIC}", file.display());
        let mut chromium = Chromium::start(program);
        chromium.open(&address);
        Page { chromium, broker }
    }

    /// Waits until every column says that it is connected.
    pub(crate) fn is_connected(&mut self) {
        self.until("document.querySelectorAll('section[data-state=open]').length === 4");
    }

    /// Sends a record by the form, and waits until every column has a latency to show.
    pub(crate) fn sends_by_itself(&mut self) {
        self.chromium.evaluate("document.querySelector('#produce button').click()");
        self.until(
            "[...document.querySelectorAll('.latency b')].every((b) => b.textContent !== '–')",
        );
    }

    /// Takes its network away, and waits until it noticed.
    pub(crate) fn goes_offline(&mut self) {
        self.chromium.set_offline(true);
        self.until("document.querySelector('#short').dataset.state === 'lost'");
    }

    /// Gives its network back.
    pub(crate) fn goes_online(&mut self) {
        self.chromium.set_offline(false);
    }

    /// Waits until every column has as many records, and fails unless they are these, in the order of each partition.
    pub(crate) fn shows(&mut self, records: &Records) {
        let count: usize = records.values().map(Vec::len).sum();
        for column in COLUMNS {
            self.until(&format!("document.querySelectorAll('#{column} li').length >= {count}"));
            let shown = self.shown(column);
            for (partition, records) in records {
                let shown = shown.get(partition).map(Vec::as_slice).unwrap_or_default();
                let differs = records.iter().zip(shown).find(|(record, shown)| record != shown);
                assert_eq!(differs, None, "in the log and in `{column}`, partition {partition}");
                assert_eq!(shown.len(), records.len(), "in `{column}`, partition {partition}");
            }
        }
    }

    /// The list of a column, the oldest record first.
    fn shown(&mut self, column: &str) -> Records {
        let list = self.chromium.evaluate(&format!(
            "[...document.querySelectorAll('#{column} li')].reverse().map(({{ dataset: {{ at, value }} }}) => [at, value])"
        ));
        let mut records = Records::new();
        for item in list.as_array().unwrap() {
            let (partition, offset) = item[0].as_str().unwrap().split_once(':').unwrap();
            let record = (offset.parse().unwrap(), item[1].as_str().unwrap().to_owned());
            records.entry(partition.parse().unwrap()).or_default().push(record);
        }
        records
    }

    /// Fails if the page found something missing or repeated, failed itself, or asked anybody but the broker.
    pub(crate) fn is_content(&mut self) {
        let found =
            "[...document.querySelectorAll('.repeated, .missing')].map((dd) => dd.textContent)";
        let found = self.chromium.evaluate(found);
        assert!(found.as_array().unwrap().iter().all(|count| count == "0"), "{found}");
        assert_eq!(self.chromium.exceptions, Vec::<Value>::new());
        let others = self.chromium.asked_for.iter().filter(|url| {
            let is_broker = url.starts_with(&format!("{}/", self.broker));
            !is_broker && !url.starts_with("file://")
        });
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    /// Waits until something is so on the page.
    fn until(&mut self, is_so: &str) {
        let end = format!("performance.now() + {PATIENCE_MS}");
        let came = self.chromium.evaluate(&format!(
            "new Promise((done) => {{
                const end = {end}
                const look = () => {{
                    if ({is_so}) return done(true)
                    if (performance.now() > end) return done(false)
                    setTimeout(look, 10)
                }}
                look()
            }})"
        ));
        if came != true {
            let text = self.chromium.evaluate("document.body.innerText");
            panic!("it did not come to `{is_so}`:\n{}", text.as_str().unwrap_or_default());
        }
    }
}
