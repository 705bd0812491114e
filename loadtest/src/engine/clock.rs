//! The run's clock, and a sleep that is better than a millisecond.
//!
//! tokio's timers are of whole milliseconds and round up, so an arrival would be up to two late. On Linux a timerfd wakes
//! the thread within some 50 µs and burns nothing; elsewhere the last millisecond is waited for by giving way.

use std::time::{Duration, Instant};

use crate::ledger::Micros;

/// Time since the run began. Copied freely; all threads count from the same moment.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// A run that begins at `began`, which may lie ahead: until then it is 0.
    pub fn new(began: Instant) -> Self {
        Self { began }
    }

    pub fn now(self) -> Micros {
        micros(self.began.elapsed())
    }

    pub fn instant(self, at: Micros) -> Instant {
        self.began + Duration::from_micros(at)
    }
}

pub fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
pub use linux::{Alarm, come_first};
#[cfg(not(target_os = "linux"))]
pub use portable::{Alarm, come_first};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::ErrorKind;
    use std::time::{Duration, Instant};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::net::unix::pipe;

    /// Has this thread run before others when its moment comes: buyers do not wait for the server's machine before they
    /// click. Without the right to it things stay as they are, and the schedule error says how late it was.
    pub fn come_first() {
        let _ = rustix::process::nice(-10);
    }

    /// One timer of one thread.
    pub struct Alarm {
        timer: rustix::fd::OwnedFd,
        /// The same timer. tokio's `AsyncFd` is `unsafe`, which is forbidden here; a timer that is read like a pipe is
        /// ready like a pipe.
        rings: pipe::Receiver,
    }

    impl Alarm {
        pub fn new() -> std::io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            let rings = pipe::Receiver::from_owned_fd_unchecked(timer.try_clone()?)?;
            Ok(Self { timer, rings })
        }

        pub async fn sleep_until(&self, at: Instant) -> std::io::Result<()> {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let whole = |time: Duration| Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            };
            let value = Itimerspec { it_interval: whole(Duration::ZERO), it_value: whole(left) };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value)?;
            loop {
                self.rings.readable().await?;
                let mut expirations = [0; 8];
                match self.rings.try_read(&mut expirations) {
                    Ok(_) => return Ok(()),
                    // An earlier setting had ended unread: tokio thought the timer ready, and the kernel knows better.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::time::{Duration, Instant};

    /// Not here.
    pub fn come_first() {}

    /// One timer of one thread.
    pub struct Alarm;

    /// What tokio's sleep may be late by.
    const SLACK: Duration = Duration::from_millis(2);

    impl Alarm {
        pub fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        pub async fn sleep_until(&self, at: Instant) -> std::io::Result<()> {
            if let Some(early) = at.checked_sub(SLACK).filter(|early| *early > Instant::now()) {
                tokio::time::sleep_until(early.into()).await;
            }
            while Instant::now() < at {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_is_never_early_and_can_be_set_again() {
        let alarm = Alarm::new().unwrap();
        for micros in [0, 300, 1, 2_500] {
            let at = Instant::now() + Duration::from_micros(micros);
            alarm.sleep_until(at).await.unwrap();
            assert!(Instant::now() >= at);
        }
    }
}
