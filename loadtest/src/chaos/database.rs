//! A MariaDB for the records: one for the whole run, killed and put to sleep like everything else.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};

use super::part::Part;
use crate::processes::{fresh_directory, lasting_port};

const PASSWORD: &str = "chaos-1";
/// It recovers from kills in a second or two.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

pub struct Database {
    pub part: Part,
    pub url: String,
    port: u16,
}

/// Its program, if there is one: often not on the PATH.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(beside).map(|directory| directory.join("mariadbd")).find(|path| path.is_file())
}

impl Database {
    /// A new one, with an empty database of our own.
    pub async fn start(program: &Path, directory: &Path) -> anyhow::Result<Self> {
        let home = directory.join("records");
        fresh_directory(&home)?;
        let home = home.canonicalize()?;
        let data = format!("--datadir={}", home.join("data").display());
        // It refuses to be root unless it is told to.
        let user = "--user=root";
        let install = ["--no-defaults", &data, user, "--auth-root-authentication-method=normal", "--skip-test-db"];
        let output = Command::new("mariadb-install-db").args(install).output().await;
        let output = output.context("cannot run mariadb-install-db")?;
        ensure!(output.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&output.stderr));
        let setup = home.join("setup.sql");
        std::fs::write(
            &setup,
            format!(
                "CREATE DATABASE IF NOT EXISTS rushline;\n\
                 CREATE USER IF NOT EXISTS rushline IDENTIFIED BY '{PASSWORD}';\n\
                 GRANT ALL ON rushline.* TO rushline;\n\
                 DELETE FROM mysql.global_priv WHERE User = '';\n\
                 FLUSH PRIVILEGES;\n"
            ),
        )?;
        let port = lasting_port()?;
        let args = [
            "--no-defaults".to_owned(),
            data,
            user.into(),
            "--bind-address=127.0.0.1".into(),
            format!("--port={port}"),
            format!("--socket={}", home.join("s").display()),
            format!("--pid-file={}", home.join("pid").display()),
            format!("--init-file={}", setup.display()),
            "--innodb-buffer-pool-size=32M".into(),
        ];
        let part = Part::new("records", program, args.to_vec(), Vec::new(), directory);
        let url = format!("mysql://rushline:{PASSWORD}@127.0.0.1:{port}/rushline");
        let mut database = Self { part, url, port };
        database.part.start()?;
        database.ready().await?;
        Ok(database)
    }

    /// Waits until it takes connections.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WAIT_MAX;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            ensure!(Instant::now() < deadline, "MariaDB does not start:\n{}", self.part.log_tail(20));
            sleep(POLL).await;
        }
        Ok(())
    }
}
