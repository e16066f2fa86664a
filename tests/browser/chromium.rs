//! Headless Chromium with one tab, driven by its DevTools protocol over a pipe.
//!
//! Messages are JSON with a zero byte behind each, to its descriptor 3 and from its 4. Nothing listens on a port, and the
//! browser ends with the pipe.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{npm, process::finish};

/// What is not answered by then will not be.
const DEADLINE: Duration = Duration::from_secs(60);
/// Without a sandbox, since containers have no rights to make one; without anything that calls home.
const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
];
/// Moves the pipe to the descriptors of the protocol, and is the browser from then on.
const SHELL: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#;
/// Unpacks the browser, its libraries and its fonts into the folder for temporary files.
const UNPACK: &str = r#"await (await import("@sparticuz/chromium")).default.executablePath()"#;

/// Chromium as the package brings it.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it was unpacked.
    folder: PathBuf,
}

impl Program {
    /// Fetches and unpacks it, unless that was done before; the reason when it cannot be had.
    pub(crate) fn installed() -> Result<Program, String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("it is packed for Linux on x86-64 only".to_owned());
        }
        let packages = npm::installed("browser", &[])?;
        // With the packages, so that it goes when other versions come.
        let folder = packages.join("node_modules/.unpacked");
        if !folder.exists() {
            let part = packages.join("node_modules/.unpacking");
            fs::remove_dir_all(&part).ok();
            fs::create_dir_all(&part).unwrap();
            let mut unpack = Command::new("node");
            unpack.args(["--input-type=module", "--eval", UNPACK]).current_dir(&packages);
            // Its libraries are unpacked where it takes them for missing, which is there.
            unpack.env("TMPDIR", &part).env("AWS_EXECUTION_ENV", "AWS_Lambda_nodejs20.x");
            let output = finish(&mut unpack, DEADLINE)?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "cannot unpack Chromium: {said}");
            fs::rename(part, &folder).unwrap();
        }
        Ok(Program { folder })
    }

    /// Settings by which it finds its fonts wherever it was unpacked: without any it does not run.
    fn fonts(&self, folder: &Path) -> PathBuf {
        let file = folder.join("fonts.conf");
        let (fonts, cache) = (self.folder.join("fonts"), folder.join("fonts"));
        let (fonts, cache) = (fonts.display(), cache.display());
        let text =
            format!("<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>");
        fs::write(&file, text).unwrap();
        file
    }
}

/// The browser.
#[derive(Debug)]
pub(crate) struct Chromium {
    child: Child,
    /// What it is asked goes here.
    to: ChildStdin,
    /// Answers and events.
    from: Receiver<Value>,
    /// Number of the last question.
    asked: u64,
    /// Of the tab, once there is one.
    session: Option<String>,
    /// Uncaught exceptions of the page.
    pub(crate) exceptions: Vec<Value>,
    /// Addresses the page asked for.
    pub(crate) asked_for: BTreeSet<String>,
    /// Holds its profile, what it says and its temporary files.
    folder: TempDir,
}

impl Chromium {
    /// Starts it with an empty tab.
    pub(crate) fn start(program: &Program) -> Chromium {
        let folder = tempfile::tempdir().unwrap();
        let said = File::create(folder.path().join("stderr")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", SHELL]).arg(program.folder.join("chromium")).args(FLAGS);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.env("LD_LIBRARY_PATH", program.folder.join("al2023/lib"));
        command.env("FONTCONFIG_FILE", program.fonts(folder.path()));
        command.env("TMPDIR", folder.path()).env("HOME", folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said).process_group(0);
        let mut child = command.spawn().unwrap();
        let (to, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (found, from) = channel();
        thread::spawn(move || {
            for message in BufReader::new(stdout).split(0).map_while(Result::ok) {
                found.send(serde_json::from_slice(&message).unwrap()).ok();
            }
        });
        let mut chromium = Chromium {
            child,
            to,
            from,
            asked: 0,
            session: None,
            exceptions: Vec::new(),
            asked_for: BTreeSet::new(),
            folder,
        };
        let tab = chromium.ask("Target.createTarget", json!({"url": "about:blank"}));
        let tab = json!({"targetId": tab["targetId"], "flatten": true});
        let session = chromium.ask("Target.attachToTarget", tab);
        chromium.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network"] {
            chromium.ask(&format!("{domain}.enable"), json!({}));
        }
        chromium
    }

    /// Shows a page.
    pub(crate) fn open(&mut self, address: &str) {
        let opened = self.ask("Page.navigate", json!({"url": address}));
        assert_eq!(opened.get("errorText"), None, "{address}");
    }

    /// What an expression gives on the page, once it is fulfilled if it is a promise.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.ask("Runtime.evaluate", asked);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Takes the network of the page away, or gives it back.
    pub(crate) fn set_offline(&mut self, is_offline: bool) {
        let conditions = json!({
            "offline": is_offline,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": -1,
        });
        self.ask("Network.emulateNetworkConditions", conditions);
    }

    /// The answer to one question; what is told meanwhile is remembered.
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let sent = write!(self.to, "{message}\0").and_then(|()| self.to.flush());
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(told) = self.from.recv_timeout(left) else {
                let said = fs::read_to_string(self.folder.path().join("stderr"));
                panic!("{sent:?}, but no answer to {method}; it said {}", said.unwrap_or_default());
            };
            if told["id"] == self.asked {
                assert_eq!(told.get("error"), None, "{method}");
                return told["result"].clone();
            }
            self.hear(&told);
        }
    }

    fn hear(&mut self, event: &Value) {
        let told = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.exceptions.push(told.clone()),
            Some("Network.requestWillBeSent") => {
                let address = told["request"]["url"].as_str().unwrap_or_default();
                self.asked_for.insert(address.to_owned());
            }
            Some(_) | None => {}
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // With its helpers: they would go soon, but write into the folder until then.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
    }
}
