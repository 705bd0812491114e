//! Just enough of Redis's protocol to read its own figures, and to call a script.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// Commands that scripts call. Redis counts their time twice: by themselves, and in the EVALSHA around them. Sent by
/// themselves they are rare (recovery, a look at a sale), so only the time in EVALSHA is taken.
const IN_SCRIPTS: [&str; 34] = [
    "del",
    "exists",
    "get",
    "getrange",
    "hdel",
    "hexists",
    "hget",
    "hincrby",
    "hlen",
    "hmget",
    "hset",
    "hsetnx",
    "hvals",
    "incrby",
    "mget",
    "mset",
    "msetnx",
    "set",
    "setrange",
    "time",
    "unlink",
    "xack",
    "xadd",
    "xclaim",
    "xdel",
    "xgroup",
    "xinfo",
    "xlen",
    "xpending",
    "zadd",
    "zcard",
    "zrangebyscore",
    "zrem",
    "zscore",
];

/// Questions of this program, and of a server that starts.
const QUESTIONS: [&str; 4] = ["info", "config", "memory", "ping"];

/// A connection to a Redis.
pub struct Redis {
    stream: BufReader<Box<dyn Stream>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Where a Redis is.
#[derive(Debug, Clone)]
pub enum Place {
    Socket(PathBuf),
    Address(SocketAddr),
}

impl Place {
    /// `unix:PATH`, `redis://host:port` or `host:port`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Socket(path.into()));
        }
        let address = text.strip_prefix("redis://").unwrap_or(text).trim_end_matches('/');
        crate::run::resolve(address).map(Self::Address)
    }
}

impl Redis {
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.with_context(|| format!("Redis at {}", socket.display()))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    pub async fn at(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Socket(path) => Self::open(path).await,
            Place::Address(address) => {
                let stream = TcpStream::connect(address).await.with_context(|| format!("Redis at {address}"))?;
                stream.set_nodelay(true)?;
                Ok(Self { stream: BufReader::new(Box::new(stream)) })
            }
        }
    }

    /// One command; the reply as text, `None` for nil. Arrays are not asked for here.
    pub async fn call(&mut self, words: &[&str]) -> anyhow::Result<Option<String>> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.write_all(command.as_bytes()).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let line = line.trim_end();
        match line.split_at_checked(1) {
            Some(("+" | ":", text)) => Ok(Some(text.into())),
            Some(("$", "-1")) => Ok(None),
            Some(("$", bytes)) => {
                let mut text = vec![0; bytes.parse::<usize>()? + 2];
                self.stream.read_exact(&mut text).await?;
                text.truncate(text.len() - 2);
                Ok(Some(String::from_utf8(text)?))
            }
            _ => bail!("Redis answered {line:?} to {words:?}"),
        }
    }

    /// A number; nil, as of a key that does not exist, is 0.
    pub async fn number(&mut self, words: &[&str]) -> anyhow::Result<u64> {
        let reply = self.call(words).await?;
        reply.map_or(Ok(0), |text| text.parse().with_context(|| format!("{words:?} gave {text:?}, no number")))
    }

    /// The lines of one section of INFO, as name and value.
    pub async fn info(&mut self, section: &str) -> anyhow::Result<Vec<(String, String)>> {
        let text = self.call(&["INFO", section]).await?.unwrap_or_default();
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.into(), value.into()))
            .collect())
    }

    pub async fn used_memory(&mut self) -> anyhow::Result<u64> {
        let info = self.info("memory").await?;
        let value = info.iter().find(|(name, _)| name == "used_memory").map(|(_, value)| value.as_str());
        Ok(value.context("INFO has no used_memory")?.parse()?)
    }

    /// Microseconds that Redis spent in each command since `CONFIG RESETSTAT`; our own questions left out, and each
    /// microsecond counted once.
    pub async fn command_micros(&mut self) -> anyhow::Result<Vec<(String, u64)>> {
        let mut commands = Vec::new();
        for (command, micros) in self.command_numbers("usec").await? {
            let counted_already = IN_SCRIPTS.iter().any(|nested| command.split('|').next() == Some(nested));
            if !counted_already && !QUESTIONS.iter().any(|ours| command.starts_with(ours)) {
                commands.push((command, micros));
            }
        }
        commands.sort_by_key(|(_, micros)| std::cmp::Reverse(*micros));
        Ok(commands)
    }

    /// How often each command ran since `CONFIG RESETSTAT`, those inside scripts included; our own questions left out.
    pub async fn calls(&mut self) -> anyhow::Result<Vec<(String, u64)>> {
        let mut commands = self.command_numbers("calls").await?;
        commands.retain(|(command, _)| !QUESTIONS.iter().any(|ours| command.starts_with(ours)));
        commands.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        Ok(commands)
    }

    /// How often scripts were called since `CONFIG RESETSTAT`.
    pub async fn script_calls(&mut self) -> anyhow::Result<u64> {
        let calls = self.command_numbers("calls").await?;
        Ok(calls.into_iter().find(|(command, _)| command == "evalsha").map_or(0, |(_, calls)| calls))
    }

    /// One of the numbers that Redis keeps of each command.
    async fn command_numbers(&mut self, what: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let mut numbers = Vec::new();
        for (name, value) in self.info("commandstats").await? {
            let number = value.split(',').find_map(|pair| pair.strip_prefix(what)?.strip_prefix('='));
            let number = number.with_context(|| format!("commandstats without {what}"))?.parse()?;
            numbers.push((name.trim_start_matches("cmdstat_").to_owned(), number));
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new command in a script would be counted twice and make Redis look slower than it is.
    #[test]
    fn every_command_that_a_script_calls_is_listed() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lua");
        let mut calls = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "lua") {
                continue;
            }
            for call in std::fs::read_to_string(&path).unwrap().split("redis.call('").skip(1) {
                let command = call.split('\'').next().unwrap().to_lowercase();
                assert!(IN_SCRIPTS.contains(&command.as_str()), "{command} of {} is not listed", path.display());
                calls += 1;
            }
        }
        assert!(calls > 10, "the scripts were not found: {calls} calls");
    }
}
