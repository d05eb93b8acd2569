//! One request per connection, over HTTP/1.0, so that the answer has neither chunks nor a connection to keep. Used to talk
//! to the admin API and to OCSP responders; not a general HTTP client: no redirects, no TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Time to connect, and time between two bytes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `request`, and reads until the other side closes: at most `bytes_max` within `time_max`, and what is more is left.
pub fn send(address: SocketAddr, request: &[u8], bytes_max: u64, time_max: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + time_max;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE.min(time_max))?;
    stream.set_read_timeout(Some(PATIENCE.min(time_max)))?;
    stream.set_write_timeout(Some(PATIENCE.min(time_max)))?;
    stream.write_all(request)?;
    let mut stream = stream.take(bytes_max);
    let (mut answer, mut part) = (Vec::new(), [0; 8192]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Status and body. The error ends the sentence "the answer …". An answer that ended early is an error.
pub fn parse_answer(answer: &[u8]) -> Result<(u16, &[u8]), &'static str> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("has no complete head")?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| "has a head that is not text")?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or("is not HTTP/1")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match length {
        Some(length) if length != body.len() => Err("ended early"),
        _ => Ok((status, body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_refused() {
        for (answer, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Ok((200, "{}"))),
            ("HTTP/1.0 404 Not Found\r\n\r\n{\"error\":1}", Ok((404, "{\"error\":1}"))),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", Err("ended early")),
            ("HTTP/1.1 200 OK\r\n", Err("has no complete head")),
            ("SSH-2.0-x\r\n\r\n", Err("is not HTTP/1")),
            ("", Err("has no complete head")),
        ] {
            assert_eq!(
                parse_answer(answer.as_bytes()),
                wanted.map(|(status, body)| (status, body.as_bytes()))
            );
        }
    }
}
