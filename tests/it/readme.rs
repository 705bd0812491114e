//! README.md tells the truth: its commands are run as they stand there, on the real program, and must print what it
//! quotes.
//!
//! A comment in front of a fenced block says what to do with it: `<!-- tried -->` runs it to its end,
//! `<!-- tried: in a terminal of its own, until ADDRESS answers -->` leaves it running, and `<!-- answers -->` holds
//! what the last command must have printed, `…` standing for anything.

use crate::support::process::free_port;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const README: &str = include_str!("../../README.md");
/// The gid that the README shows; the one that the program makes up takes its place.
const GID_SHOWN: &str = "nov22.0.1763800000000-0.0";
const READY_WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq)]
enum Step {
    /// Left running until the address answers, and on.
    Terminal {
        script: String,
        address: String,
    },
    Run(String),
    Answers(String),
}

/// The marked blocks, in their order.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "a fenced block must follow `{line}`");
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n");
        steps.push(match mark {
            "tried" => Step::Run(block),
            "answers" => Step::Answers(block),
            other => {
                let address = other
                    .strip_prefix("tried: in a terminal of its own, until ")
                    .and_then(|rest| rest.strip_suffix(" answers"))
                    .unwrap_or_else(|| panic!("README.md: nobody knows what `{line}` means"));
                Step::Terminal { script: block, address: address.to_owned() }
            }
        });
    }
    steps
}

/// A terminal: a shell in the reader's directory. Closing it is Ctrl-C and patience.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        // The whole group, as a terminal does; its id is that of the shell.
        let _ = Command::new("kill").args(["-s", "INT", "--", &format!("-{}", self.0.id())]).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(25));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(directory: &Path, script: &str) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_rushline")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(programs.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(directory).env("PATH", path.unwrap()).stdin(Stdio::null());
    command
}

fn run(directory: &Path, script: &str) -> String {
    let output = shell(directory, script).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "README.md: {}\n{script}\n{stdout}{stderr}", output.status);
    stdout
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

fn wait_for(address: &str, terminal: &mut Terminal) {
    let deadline = Instant::now() + READY_WAIT_MAX;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing answers at {address}");
        assert!(matches!(terminal.0.try_wait(), Ok(None)), "the program that was to listen at {address} has ended");
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let (http, shop) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    // The reader's ports may be taken here.
    let local = |text: &str| text.replace("127.0.0.1:36789", &http).replace("127.0.0.1:8080", &shop);
    let variables =
        format!("export RUSHLINE_HTTP_LISTEN={http} RUSHLINE_GRPC_LISTEN=127.0.0.1:0 RUSHLINE_SERVER=http://{http}\n");
    let mut terminals = Vec::new();
    let (mut gid, mut printed) = (String::from(GID_SHOWN), String::new());
    for step in steps(README) {
        match step {
            Step::Terminal { script, address } => {
                let script = format!("{variables}exec {}", local(&script));
                let log = std::fs::File::create(directory.path().join(format!("{}.log", terminals.len()))).unwrap();
                let mut shell = shell(directory.path(), &script);
                shell.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
                let mut terminal = Terminal(shell.spawn().unwrap());
                wait_for(&local(&address), &mut terminal);
                terminals.insert(0, terminal); // what was started last is closed first
            }
            Step::Run(script) => {
                printed = run(directory.path(), &format!("{variables}{}", local(&script).replace(GID_SHOWN, &gid)));
                let found = printed.split_once(r#"{"gid":""#).and_then(|(_, rest)| rest.split_once('"'));
                if let Some((found, _)) = found {
                    gid = found.to_owned();
                }
            }
            Step::Answers(quoted) => {
                let quoted = local(&quoted).replace(GID_SHOWN, &gid);
                assert!(is_quoted(&quoted, &printed), "README.md promises\n{quoted}\nbut it printed\n{printed}");
            }
        }
    }
    assert_eq!(terminals.len(), 2, "the README starts an order service and a coordinator");
}

#[test]
fn quotes_are_compared_piece_by_piece() {
    assert!(is_quoted("a … c", "a b c"));
    assert!(is_quoted("{…}", "{\"x\":1}"));
    assert!(is_quoted(" a\n   b", "a b\n"));
    assert!(!is_quoted("c … a", "a b c"));
    assert!(!is_quoted("d", "a b c"));
}

/// What the interface can answer stands in the README, so that a buyer's client can be written from it.
#[test]
fn every_code_of_a_refusal_is_in_the_readme() {
    for refusal in rushline::sale::Refusal::ALL {
        assert!(README.contains(&format!("`{}`", refusal.code())), "README.md lacks `{}`", refusal.code());
    }
}

/// The matrix of SDKs says which versions work: those that the stories run, and no others.
#[test]
fn the_sdks_of_the_matrix_are_those_that_are_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pinned = |file: &str, before: &str| -> String {
        let text = std::fs::read_to_string(root.join("tests/sdk").join(file)).unwrap();
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{file} names no {before}"));
        rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
    };
    for (sdk, version) in [
        ("github.com/dtm-labs/client", pinned("go/go.mod", "dtm-labs/client v")),
        ("dtmcli", pinned("python/requirements.txt", "dtmcli==")),
        ("github.com/zeromicro/go-zero", {
            let [new, classic] =
                ["gozero/go.mod", "gozero/classic.mod"].map(|file| pinned(file, "zeromicro/go-zero v"));
            format!("{new}, {classic}")
        }),
        ("io.github.dtm-labs:dtmcli-java", pinned("java/pom.xml", "<dtmcli>")),
    ] {
        let row = README.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{sdk}`")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row for {sdk}"));
        assert!(row.contains(&format!("| {version} |")), "{sdk} is tried at {version}, and README.md says: {row}");
    }
}

/// A page that moved must not leave dead links behind.
#[test]
fn links_between_the_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "lua/README.md",
        "docs/go-zero.md",
        "docs/reliability.md",
        "docs/performance.md",
        "docs/security.md",
        "tests/sdk/README.md",
    ] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                let target = root.join(page).parent().unwrap().join(path);
                assert!(target.exists(), "{page} links to {link}, which is not there");
            }
        }
    }
}
