//! What systemd wants to be told of a unit with `Type=notify`: that the server is ready, and that it stops.
//!
//! A line to the socket that `NOTIFY_SOCKET` names, as sd_notify(3) describes it; without one nobody asked.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    Ready,
    Stopping,
}

/// Tells whoever started this process, if it wants to hear.
pub fn tell(news: News) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = tell_at(&socket, news) {
        tracing::warn!(%error, "the service manager could not be told; it may take this server for one that hangs");
    }
}

fn tell_at(socket: &OsStr, news: News) -> io::Result<()> {
    let line: &[u8] = match news {
        News::Ready => b"READY=1\n",
        News::Stopping => b"STOPPING=1\n",
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?; // a service manager that does not read must not hold up the sale
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(line, &address).map(|_| ());
    }
    sender.send_to(line, socket).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_hears_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        tell_at(path.as_os_str(), News::Ready).unwrap();
        tell_at(path.as_os_str(), News::Stopping).unwrap();
        let mut heard = [0; 64];
        let mut next = || {
            let bytes = listener.recv(&mut heard).unwrap();
            String::from_utf8(heard[..bytes].to_vec()).unwrap()
        };
        assert_eq!([next(), next()], ["READY=1\n", "STOPPING=1\n"]);
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_no_more() {
        tell_at(OsStr::new("/nowhere/notify"), News::Ready).unwrap_err();
    }
}
