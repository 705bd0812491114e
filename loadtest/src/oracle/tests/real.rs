//! The same crowd against a real rushline: nothing to charge it with. Needs `rushline` where cargo puts the workspace's
//! programs, as `cargo test --workspace` leaves it, and `redis-server`.

use super::*;
use crate::processes::{Process, free_port};
use std::net::SocketAddr;

#[test]
fn rushline_is_not_guilty_of_anything() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let deps = std::env::current_exe().unwrap();
        let rushline = deps.ancestors().nth(2).unwrap().join("rushline");
        assert!(rushline.exists(), "{} is missing\nhint: cargo build", rushline.display());
        let directory = std::env::temp_dir().join(format!("rushline-oracle-{}", std::process::id()));
        crate::processes::fresh_directory(&directory).unwrap();
        let shop = Api { address: SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())) };
        let envs = [
            ("RUSHLINE_HTTP_LISTEN".to_owned(), shop.address.to_string()),
            ("RUSHLINE_GRPC_LISTEN".into(), "127.0.0.1:0".into()),
            ("RUSHLINE_DATA_DIR".into(), directory.join("data").display().to_string()),
        ];
        let log = directory.join("server.log");
        let mut server = Process::start("rushline serve", &rushline, &["serve"], &envs, &log).unwrap();
        server.ready(shop, "/readyz").await.unwrap();
        for story in [Story::Flash, Story::Window] {
            let service = service().await;
            let crowd = Crowd::open(shop, service, &format!("{story:?}").to_lowercase(), story, json!({})).await;
            let (ledger, after) = crowd.run(service).await;
            let verdict = judge(&ledger, &after, Tolerance::default());
            assert_eq!(verdict.word(), Word::Clean, "{story:?}: {verdict}");
            if story == Story::Flash {
                for what in
                    ["orders that stand", "sold-out answers", "limit answers", "orders of buyers who got no answer"]
                {
                    assert!(verdict.looked_at.get(what).is_some_and(|n| *n > 0), "no {what}: {verdict}");
                }
            }
        }
        server.stop().await.unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }));
}
