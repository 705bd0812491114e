//! T20: the server needs nothing of its host but its program, a Redis and a database: no account of its own, no capability,
//! nothing to write to.

use crate::support::app::{App, AppOptions};
use crate::support::crowd::{SALE, order_of};
use crate::support::process::is_root;
use crate::support::servers::{Postgres, Redis, RedisVersion};
use crate::support::shop::Shop;
use std::path::Path;

/// Nobody's: as in the image.
const UID: &str = "65532";

/// Becomes the server, with every file system read-only for it, and without any right.
const SHUT_IN: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    // Also what is mounted on top of it, such as /tmp; what cannot be mounted again (proc, sys) has no files of ours. The
    // program is opened before: nobody may look into the directories on the way to it.
    "while read -r _ where _; do mount -o remount,bind,ro \"$where\" 2>/dev/null || :; done </proc/self/mounts; \
     if touch \"$PWD/written\" 2>/dev/null; then echo 'this can still be written to' >&2; exit 1; fi; \
     exec 9<\"$1\"; shift; cd /; \
     exec setpriv --reuid=\"$UID_OF_SERVER\" --regid=\"$UID_OF_SERVER\" --clear-groups --no-new-privs --bounding-set=-all \
     --inh-caps=-all /proc/self/fd/9 \"$@\"",
    "sh",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_passes_on_a_read_only_host_without_any_right() {
    if !is_root() || !Path::new("/usr/bin/setpriv").exists() {
        assert!(std::env::var_os("CI").is_none(), "CI tries all, and this takes root and setpriv");
        eprintln!("left out: it takes root to give up everything");
        return;
    }
    let redis = Redis::start(RedisVersion::V8, &[]).await;
    let records = Postgres::start().await;
    let shop = Shop::start().await;
    let options = AppOptions::default()
        .redis(&redis.url())
        .records(&records.url())
        .environment("UID_OF_SERVER", UID)
        .data_dir(Path::new("/nowhere")) // with both set, there is nothing to keep there
        .launched_by(SHUT_IN);
    let mut app = App::start(options).await;

    let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid"), [UID; 4].join(" "));
    assert_eq!(field("Gid"), [UID; 4].join(" "));
    assert_eq!(field("NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{set}");
    }

    app.create_sale(&crate::rolling::plenty(&shop)).await;
    for number in 0..20 {
        let key = format!("k-{number}0");
        assert_eq!(app.order(SALE, &key, &order_of(&key)).await.status, 201);
    }
    let report = app.wait_until_settled(SALE).await;
    assert_eq!((&report["drift"], &report["records"]["succeed"]), (&0.into(), &20.into()), "{report}");
    assert!(!Path::new("/nowhere").exists());
    assert!(app.terminate().await.success(), "{}", app.log());
}
