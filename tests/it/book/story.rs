//! A page told: its commands in their order, in a directory of their own, on the real programs.

use super::page::{Block, Mark, Page, Until};
use crate::support::process::free_port;
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// In each gid that a page shows; the one that the program made up for that sale takes its place.
const MOMENT_SHOWN: &str = ".1763800000000-";
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Ports that every page may name.
const PORTS: [&str; 3] = ["36789", "36790", "8080"];

/// What there can be before the first command of a page.
const BEGINNINGS: &[(&str, &[Step])] = &[
    (
        "the sale nov22",
        &[
            Step::Terminal("rushline order-service --listen 127.0.0.1:8080 --db shop.db", "127.0.0.1:8080"),
            Step::Terminal("rushline serve", "127.0.0.1:36789"),
            Step::Run(
                "rushline sale create nov22 --item sku-1=1000 --limit-per-buyer 2 \
                 --order-endpoint http://127.0.0.1:8080/orders",
            ),
            Step::Run(
                "curl -s 'http://127.0.0.1:36789/v1/sales/nov22/orders?wait_ms=5000' -H 'Idempotency-Key: click-1' \
                 -d '{\"buyer\": \"u1\", \"items\": [{\"sku\": \"sku-1\", \"quantity\": 1}]}'",
            ),
            Step::Run(
                "curl -s http://127.0.0.1:36789/api/dtmsvr/prepare \
                 -d '{\"gid\": \"transfer-42\", \"trans_type\": \"tcc\", \"timeout_to_fail\": 600}'",
            ),
        ],
    ),
    ("a server", &[Step::Terminal("rushline serve", "127.0.0.1:36789")]),
];

enum Step {
    Terminal(&'static str, &'static str),
    Run(&'static str),
}

pub struct Story<'a> {
    /// What was started last is closed first, and all before their directory goes.
    terminals: Vec<Terminal>,
    page: &'a str,
    directory: TempDir,
    /// Port as the page has it, and as it is here.
    ports: BTreeMap<String, u16>,
    /// The last gid of each sale.
    gids: BTreeMap<String, String>,
    printed: String,
}

/// A terminal: a shell in the reader's directory. Closing it is Ctrl-C and patience.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        // The whole group, as a terminal does; its id is that of the shell.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-s", "INT", "--", &group]).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(25));
        }
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// Tells the whole page; panics with the page's name at what it promises and does not keep.
pub fn tell(page: &Page) {
    let mut story = Story::new(page);
    if let Some(beginning) = &page.beginning {
        let known = BEGINNINGS.iter().find(|(name, _)| name == beginning);
        let (_, steps) = known.unwrap_or_else(|| panic!("{}: nobody knows the story `{beginning}`", page.name));
        for step in *steps {
            match step {
                Step::Terminal(script, address) => story.open(script, &Until::Answers((*address).to_owned())),
                Step::Run(script) => story.run(script, 0),
            }
        }
    }
    for block in &page.blocks {
        story.step(block);
    }
}

/// Free, and so is the one of the Cluster's bus, ten thousand higher: below those that the system lends to others.
fn port_and_bus() -> u16 {
    let is_good = |port: u16| port < 22_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok();
    std::iter::repeat_with(free_port).find(|port| is_good(*port)).expect("this goes on for ever")
}

impl<'a> Story<'a> {
    fn new(page: &'a Page) -> Self {
        let mut ports: BTreeMap<String, u16> = PORTS.iter().map(|port| ((*port).to_owned(), port_and_bus())).collect();
        for block in &page.blocks {
            for rest in block.text.split("127.0.0.1:").skip(1) {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                if !port.is_empty() && port != "0" {
                    ports.entry(port).or_insert_with(port_and_bus);
                }
            }
        }
        let directory = tempfile::Builder::new().prefix("rl-page-").tempdir().unwrap();
        let (gids, printed, terminals) = (BTreeMap::new(), String::new(), Vec::new());
        Self { terminals, page: &page.name, directory, ports, gids, printed }
    }

    fn step(&mut self, block: &Block) {
        match &block.mark {
            Some(Mark::Tried { exit_code }) => self.run(&block.text, *exit_code),
            Some(Mark::Terminal { until }) => self.open(&block.text, until),
            Some(Mark::File { name }) => {
                std::fs::write(self.directory.path().join(name), self.here(&block.text) + "\n").unwrap();
            }
            Some(Mark::Answers) => {
                let quoted = self.here(&block.text);
                let (page, line, printed) = (self.page, block.line, &self.printed);
                assert!(
                    is_quoted(&quoted, printed),
                    "{page}:{line} promises\n{quoted}\nbut it printed\n{printed}\n{}",
                    self.logs()
                );
            }
            Some(Mark::NotTried { .. }) | None => {}
        }
    }

    /// The text with the ports and the gids that there are here.
    fn here(&self, text: &str) -> String {
        self.with_gids(&self.with_ports(text))
    }

    /// The reader's ports may be taken here.
    fn with_ports(&self, text: &str) -> String {
        let mut here = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let number = &rest[start..];
            let number = &number[..number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len())];
            here.push_str(&rest[..start]);
            match self.ports.get(number) {
                Some(port) => here.push_str(&port.to_string()),
                None => here.push_str(number),
            }
            rest = &rest[start + number.len()..];
        }
        here + rest
    }

    fn with_gids(&self, text: &str) -> String {
        let in_gid = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let mut here = String::new();
        let mut rest = text;
        while let Some(moment) = rest.find(MOMENT_SHOWN) {
            let before = rest[..moment].trim_end_matches(in_gid);
            let start = before.len();
            let shown = &rest[start..];
            let shown = &shown[..shown.find(|c| !in_gid(c)).unwrap_or(shown.len())];
            let sale = shown.split('.').next().unwrap_or_default();
            // `gid.succeed` and the like: what follows the index stays.
            let gid: Vec<&str> = shown.splitn(5, '.').collect();
            let (length, tail) = match gid[..] {
                [a, b, c, d, tail] => (a.len() + b.len() + c.len() + d.len() + 3, format!(".{tail}")),
                _ => (shown.len(), String::new()),
            };
            here.push_str(&rest[..start]);
            here.push_str(self.gids.get(sale).map_or(&shown[..length], String::as_str));
            here.push_str(&tail);
            rest = &rest[start + shown.len()..];
        }
        here + rest
    }

    fn variables(&self) -> String {
        let [http, grpc] = ["36789", "36790"].map(|port| format!("127.0.0.1:{}", self.ports[port]));
        format!("export RUSHLINE_HTTP_LISTEN={http} RUSHLINE_GRPC_LISTEN={grpc} RUSHLINE_SERVER=http://{http}\n")
    }

    fn shell(&self, script: &str) -> Command {
        let path = std::env::join_paths(
            std::iter::once(programs()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(self.directory.path()).env("PATH", path.unwrap());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("RUSHLINE_")) {
                command.env_remove(name); // the developer's own settings are none of the page's
            }
        }
        command.stdin(Stdio::null());
        command
    }

    fn run(&mut self, script: &str, exit_code: i32) {
        let output = self.shell(&(self.variables() + &self.here(script))).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(
            output.status.code() == Some(exit_code),
            "{}: {}\n{script}\n{stdout}{stderr}\n{}",
            self.page,
            output.status,
            self.logs()
        );
        self.printed = stdout + &stderr;
        let found = self.printed.split_once(r#""gid":""#).and_then(|(_, rest)| rest.split_once('"'));
        if let Some((gid, _)) = found {
            let sale = gid.split('.').next().unwrap_or_default();
            self.gids.insert(sale.to_owned(), gid.to_owned());
        }
    }

    fn open(&mut self, script: &str, until: &Until) {
        // One program is the terminal's own; several are children of its shell.
        let exec = if script.contains(" &\n") { "" } else { "exec " };
        let script = format!("{}{exec}{}", self.variables(), self.here(script));
        let path = self.directory.path().join(format!("{}.log", self.terminals.len()));
        let log = std::fs::File::create(&path).unwrap();
        let mut shell = self.shell(&script);
        shell.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let mut terminal = Terminal(shell.spawn().unwrap());
        let ready: Box<dyn Fn() -> bool> = match until {
            Until::Answers(address) => {
                let address = self.here(address);
                Box::new(move || TcpStream::connect(&address).is_ok())
            }
            Until::Says(words) => Box::new(move || std::fs::read_to_string(&path).is_ok_and(|log| log.contains(words))),
        };
        let deadline = Instant::now() + READY_WAIT_MAX;
        while !ready() {
            let page = self.page;
            assert!(Instant::now() < deadline, "{page}: not ready, {until:?}\n{}", self.logs());
            let runs = matches!(terminal.0.try_wait(), Ok(None));
            assert!(runs, "{page}: the program has ended, {until:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(25));
        }
        self.terminals.insert(0, terminal);
    }

    /// The end of what each terminal said.
    fn logs(&self) -> String {
        let logs = (0..=self.terminals.len()).filter_map(|number| {
            let log = std::fs::read_to_string(self.directory.path().join(format!("{number}.log"))).ok()?;
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            Some(format!("terminal {number}: {}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n")))
        });
        logs.collect()
    }
}

/// Where cargo puts the programs of this workspace.
pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_rushline")).parent().unwrap().to_owned()
}

/// Do the pieces between the `…` of `quoted` stand in `printed`, in their order? Line ends and margins do not count.
fn is_quoted(quoted: &str, printed: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed = plain(printed);
    let mut rest = printed.as_str();
    quoted.split('…').map(plain).filter(|piece| !piece.is_empty()).all(|piece| match rest.find(&piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[test]
fn quotes_are_compared_piece_by_piece() {
    assert!(is_quoted("a … c", "a b c"));
    assert!(is_quoted("{…}", "{\"x\":1}"));
    assert!(is_quoted(" a\n   b", "a b\n"));
    assert!(!is_quoted("c … a", "a b c"));
    assert!(!is_quoted("d", "a b c"));
}

#[test]
fn ports_and_gids_are_those_that_there_are() {
    let page = Page::read("README.md");
    let mut story = Story::new(&page);
    story.gids.insert("nov22".into(), "nov22.0.5-0.1".into());
    story.ports.insert("8080".into(), 9);
    assert_eq!(
        story.here("\"nov22.0.1763800000000-3.17.succeed\" at 127.0.0.1:8080, 18080"),
        "\"nov22.0.5-0.1.succeed\" at 127.0.0.1:9, 18080"
    );
    assert_eq!(story.here("other.0.1763800000000-3.17"), "other.0.1763800000000-3.17");
}
