//! Rust and dtm's own Go client behind one branch, on one store: each heeds the marks of the other.
//!
//! `go/main.go` is one call under a barrier of github.com/dtm-labs/client. Where there is no Go this is left out; CI wants it.

use super::shop::{Heard, Shop};
use crate::support::shared::unique;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::sync::OnceCell;

/// The Go program, built once for all stores; `None` where there is no Go.
async fn go_client() -> Option<&'static Path> {
    static BUILT: OnceCell<Option<(tempfile::TempDir, PathBuf)>> = OnceCell::const_new();
    let build = || {
        let found = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
        if !found {
            assert!(std::env::var_os("CI").is_none(), "no go here\nhint: install Go 1.22 or later; CI tries every SDK");
            eprintln!("dtm's Go client is left out: there is no go");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("barrier");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/barrier/go");
        let output = Command::new("go").args(["build", "-o"]).arg(&program).current_dir(source).output().unwrap();
        assert!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
        Some((directory, program))
    };
    let built = BUILT.get_or_init(|| async { tokio::task::spawn_blocking(build).await.unwrap() }).await;
    built.as_ref().map(|(_, program)| program.as_path())
}

struct Go<'a> {
    program: &'a Path,
    store: &'a str,
    url: &'a str,
}

impl Go<'_> {
    async fn call(&self, gid: &str, branch_id: &str, op: &str, change: i64) -> String {
        let mut command = tokio::process::Command::new(self.program);
        command.args([self.store, self.url, gid, branch_id, op, &change.to_string()]);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{op} of {gid}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// `store` and `url` as the Go program names them.
pub async fn go_and_rust_serve_one_branch(shop: &Shop, store: &str, url: &str) {
    let Some(program) = go_client().await else { return };
    let go = Go { program, store, url };
    let account = async || {
        let gid = unique("{a} shared");
        shop.open(&gid, 100).await;
        gid
    };

    let gid = account().await;
    assert_eq!(go.call(&gid, "01", "action", -30).await, "ran");
    assert_eq!(shop.call(&gid, "01", "action", -30).await, Heard::Repeated);
    assert_eq!(shop.call(&gid, "01", "compensate", 30).await, Heard::Ran);
    assert_eq!(go.call(&gid, "01", "compensate", 30).await, "skipped");
    assert_eq!(shop.balance(&gid).await, 100);

    let gid = account().await;
    assert_eq!(shop.call(&gid, "01", "cancel", 30).await, Heard::Empty);
    assert_eq!(go.call(&gid, "01", "try", -30).await, "skipped");
    let by_rust = shop.marks(&gid).await;
    let gid = account().await;
    assert_eq!(go.call(&gid, "01", "cancel", 30).await, "skipped");
    assert_eq!(shop.call(&gid, "01", "try", -30).await, Heard::Repeated);
    assert_eq!(shop.marks(&gid).await, by_rust, "both leave the same marks");

    let gid = account().await;
    assert_eq!(shop.call(&gid, "00", "msg", -30).await, Heard::Ran);
    assert_eq!(go.call(&gid, "00", "query-prepared", 0).await, "ran");
    assert_eq!(go.call(&gid, "00", "msg", -30).await, "duplicated");
    let gid = account().await;
    assert_eq!(go.call(&gid, "00", "query-prepared", 0).await, "failure");
    assert_eq!(shop.call(&gid, "00", "msg", -30).await, Heard::Duplicated);
    let gid = account().await;
    assert_eq!(go.call(&gid, "00", "msg", -30).await, "ran");
    assert_eq!(shop.check_back(&gid).await, Heard::Ran);
    assert_eq!(shop.balance(&gid).await, 70);
}
