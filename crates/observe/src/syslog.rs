//! Lines as messages of syslog (RFC 5424): a datagram each over UDP (RFC 5426) or to a local socket, or framed by their length
//! over TCP (RFC 6587 §3.4.1). Runs on the log thread, which alone waits.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use semantics::Wall;

use crate::line::{Stamp, foreign::decimal};

/// Facility local0, severity informational.
const PRIORITY: &str = "<134>1 ";

/// How long lines are tried to be delivered over TCP before they are given up. Meanwhile others wait in the bounded queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// For a connection, and between two attempts at one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTo {
    /// `host:port`, a datagram each.
    Udp(String),
    /// `host:port`, over one connection.
    Tcp(String),
    /// A local socket, such as `/dev/log`.
    Unix(PathBuf),
}

/// A writer of whole lines.
pub(crate) struct Syslog {
    to: SyslogTo,
    host: String,
    end: Option<End>,
    stamp: Stamp,
    message: Vec<u8>,
}

enum End {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixDatagram),
}

impl Syslog {
    /// `host`: the sender's name. Connects when there is something to say.
    pub(crate) fn new(to: SyslogTo, host: &str) -> Self {
        // A name of RFC 5424 §6.2.4 has no spaces and nothing that is not printable.
        let host: String = host.chars().filter(char::is_ascii_graphic).take(255).collect();
        let host = if host.is_empty() { "-".to_owned() } else { host };
        Syslog { to, host, end: None, stamp: Stamp::new(), message: Vec::new() }
    }

    fn say(&mut self, line: &[u8]) -> io::Result<()> {
        self.message.clear();
        self.message.extend_from_slice(PRIORITY.as_bytes());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.stamp.write_rfc3339(&mut self.message, Wall(now.as_millis() as i64));
        let head = format!(" {} perigee {} access - ", self.host, std::process::id());
        self.message.extend_from_slice(head.as_bytes());
        self.message.extend_from_slice(line);
        if let SyslogTo::Tcp(_) = self.to {
            let mut framed = Vec::with_capacity(self.message.len() + 8);
            decimal(&mut framed, self.message.len() as u64);
            framed.push(b' ');
            framed.append(&mut self.message);
            self.message = framed;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.try_say();
            let Err(error) = said else { return Ok(()) };
            self.end = None;
            // A datagram that is too large stays so.
            let is_hopeless = !matches!(self.to, SyslogTo::Tcp(_)) && error.raw_os_error() == Some(90);
            if is_hopeless || Instant::now() + PAUSE > deadline {
                return Err(error);
            }
            thread::sleep(PAUSE);
        }
    }

    fn try_say(&mut self) -> io::Result<()> {
        let end = match self.end.take() {
            Some(end) => end,
            None => open(&self.to)?,
        };
        match &*self.end.insert(end) {
            End::Udp(socket) => socket.send(&self.message).map(drop),
            End::Unix(socket) => socket.send(&self.message).map(drop),
            End::Tcp(stream) => (&*stream).write_all(&self.message),
        }
    }
}

fn open(to: &SyslogTo) -> io::Result<End> {
    let first = |place: &str| {
        place.to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("{place} has no address")))
    };
    match to {
        SyslogTo::Udp(place) => {
            let address = first(place)?;
            let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(local)?;
            socket.connect(address)?;
            Ok(End::Udp(socket))
        }
        SyslogTo::Tcp(place) => {
            let stream = TcpStream::connect_timeout(&first(place)?, CONNECT_TIMEOUT)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(End::Tcp(stream))
        }
        SyslogTo::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            Ok(End::Unix(socket))
        }
    }
}

impl Write for Syslog {
    /// Says whole lines; those before one that cannot be said count as written.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match self.say(line.strip_suffix(b"\n").unwrap_or(line)) {
                Ok(()) => written += line.len(),
                Err(error) if written == 0 => return Err(error),
                Err(_) => return Ok(written),
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    const LINES: &[u8] = b"{\"a\":1}\n{\"b\":2}\n";

    fn is_message(text: &str, line: &str) -> bool {
        let parts: Vec<&str> = text.splitn(8, ' ').collect();
        parts[0] == "<134>1"
            && parts[1].ends_with('Z')
            && parts[2..] == ["edge-1", "perigee", &*std::process::id().to_string(), "access", "-", line]
    }

    #[test]
    fn each_line_is_a_datagram() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let to = SyslogTo::Udp(socket.local_addr().unwrap().to_string());
        assert_eq!(Syslog::new(to, "edge-1").write(LINES).unwrap(), LINES.len());
        for wanted in ["{\"a\":1}", "{\"b\":2}"] {
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            assert!(is_message(&text, wanted), "{text}");
        }
    }

    #[test]
    fn over_tcp_lines_are_framed_by_their_length_and_said_again_on_a_new_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut syslog = Syslog::new(SyslogTo::Tcp(listener.local_addr().unwrap().to_string()), "edge-1");
        for _ in 0..2 {
            let written = thread::spawn(move || {
                assert_eq!(syslog.write(LINES).unwrap(), LINES.len());
                syslog
            });
            let (mut stream, _) = listener.accept().unwrap();
            syslog = written.join().unwrap();
            // The next write finds no connection.
            syslog.end = None;
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            for wanted in ["{\"a\":1}", "{\"b\":2}"] {
                let (length, rest) = text.split_once(' ').unwrap();
                let (message, rest) = rest.split_at(length.parse().unwrap());
                assert!(is_message(message, wanted), "{message}");
                text = rest.to_owned();
            }
            assert_eq!(text, "");
        }
    }

    #[test]
    fn local_sockets_take_datagrams_too() {
        let path = std::env::temp_dir().join(format!("perigee-syslog-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        Syslog::new(SyslogTo::Unix(path.clone()), "edge-1").write_all(b"x\n").unwrap();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        assert!(is_message(&String::from_utf8_lossy(&buffer[..length]), "x"));
        std::fs::remove_file(path).unwrap();
    }
}
