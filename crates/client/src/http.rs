//! One request per connection: to the APIs of control, edges and routers, to OCSP responders and collectors, and to origins of which only
//! heads are wanted. Not a general HTTP client: no redirects, and TLS is the caller's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Time to connect to one address.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of heads that are read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection to the first of these addresses that takes one, each within 10 s, or `patience` if that is less. Each read and write
/// of it may take `patience`.
///
/// # Errors
/// There is no address, or the last one's.
pub fn connect(addresses: impl ToSocketAddrs, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE.min(patience)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends `request`, which is of HTTP/1.0, so that the answer has neither chunks nor a connection to keep, and reads until the other side
/// closes: at most `bytes_max` within `time_max`, and what is more is left.
///
/// # Errors
/// There is no connection, or it breaks, or the time is over (`TimedOut` or `WouldBlock`).
pub fn send(
    addresses: impl ToSocketAddrs,
    request: &[u8],
    bytes_max: u64,
    time_max: Duration,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + time_max;
    let mut stream = connect(addresses, time_max)?;
    stream.write_all(request)?;
    let (mut answer, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let room = bytes_max - answer.len() as u64;
        match (&stream).take(room).read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a request in parts, and reads status and head of its answer, up to the empty line, and of what follows no more than comes with
/// it. Heads of interim answers are passed over.
///
/// # Errors
/// The connection breaks, the answer is not HTTP/1, or its head is longer than 64 KiB.
pub fn ask_head(stream: &mut (impl Read + Write), request: &[&[u8]]) -> io::Result<(u16, Vec<u8>)> {
    request.iter().try_for_each(|part| stream.write_all(part))?;
    stream.flush()?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while answer.len() < HEAD_BYTES_MAX {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(head) = find_head(&answer) {
            let head = answer[head].to_vec();
            let status = status_of(&head);
            let not_http = || io::Error::new(ErrorKind::InvalidData, "the answer is not HTTP/1");
            return Ok((status.ok_or_else(not_http)?, head));
        }
    }
    Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer has no complete head"))
}

/// Status and body. The error ends the sentence "the answer …". An answer that ended early is an error.
pub fn parse_answer(answer: &[u8]) -> Result<(u16, &[u8]), &'static str> {
    let head = find_head(answer).ok_or("has no complete head")?;
    let body = &answer[head.end + 4..];
    let head = &answer[head];
    let status = status_of(head).ok_or("is not HTTP/1")?;
    let length = field(head, "content-length").and_then(|value| value.parse::<usize>().ok());
    match length {
        Some(length) if length != body.len() => Err("ended early"),
        _ => Ok((status, body)),
    }
}

/// The first value of a field of a head.
pub fn field(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let mut fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(of, _)| of.eq_ignore_ascii_case(name))?;
    Some(value.trim().to_owned())
}

/// Where the head of the final answer is, once all of it is there, without the empty line. Those of interim answers (RFC 9110 §15.2) are
/// passed over; 101 is final.
fn find_head(answer: &[u8]) -> Option<Range<usize>> {
    let mut start = 0;
    loop {
        let end = start + answer[start..].windows(4).position(|window| window == b"\r\n\r\n")?;
        match status_of(&answer[start..end]) {
            Some(100 | 102..=199) => start = end + 4,
            _ => return Some(start..end),
        }
    }
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use super::*;

    #[test]
    fn answers_are_read_whole_or_refused() {
        for (answer, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Ok((200, "{}"))),
            ("HTTP/1.0 404 Not Found\r\n\r\n{\"error\":1}", Ok((404, "{\"error\":1}"))),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", Err("ended early")),
            ("HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 1\r\n\r\na", Ok((404, "a"))),
            ("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\n", Err("has no complete head")),
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

    /// Answers one request so, and closes only when it is dropped.
    fn answering(parts: &'static [&'static str]) -> (SocketAddr, thread::JoinHandle<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            parts.iter().for_each(|part| stream.write_all(part.as_bytes()).unwrap());
            stream
        });
        (address, serving)
    }

    #[test]
    fn a_head_is_there_before_the_connection_ends() {
        for (parts, wanted) in [
            (&["HTTP/1.1 204 x\r\nContent-Length: 9\r\n\r\n"][..], Ok((204, Some("9".to_owned())))),
            (&["HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 x", "\r\nA: b\r\n\r\nx"], Ok((200, None))),
            (&["SSH-2.0\r\n\r\n"], Err(ErrorKind::InvalidData)),
        ] {
            let (address, serving) = answering(parts);
            let mut stream = connect(address, Duration::from_secs(30)).unwrap();
            let asked = ask_head(&mut stream, &[b"GET / HTTP/1.1\r\n", b"\r\n"]);
            let asked = asked.map(|(status, head)| (status, field(&head, "Content-Length")));
            assert_eq!(asked.map_err(|error| error.kind()), wanted);
            drop(serving.join().unwrap());
        }
    }

    #[test]
    fn an_answer_is_waited_for_to_the_end_of_its_time_and_read_to_its_bytes() {
        let (address, serving) = answering(&["HTTP/1.0 200 x\r\n\r\nabc"]);
        let begun = Instant::now();
        let answer = send(address, b"GET / HTTP/1.0\r\n\r\n", 1000, Duration::from_millis(200));
        assert!(matches!(answer.unwrap_err().kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock));
        assert!(begun.elapsed() >= Duration::from_millis(200));
        drop(serving.join().unwrap());
        let (address, serving) = answering(&["HTTP/1.0 200 x\r\n\r\nabc"]);
        let answer = send(address, b"GET / HTTP/1.0\r\n\r\n", 20, Duration::from_secs(30)).unwrap();
        assert_eq!(parse_answer(&answer), Ok((200, &b"ab"[..])));
        drop(serving.join().unwrap());
    }
}
