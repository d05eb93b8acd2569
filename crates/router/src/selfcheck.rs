//! Whether this server answers: it asks itself for its zone's SOA by UDP, at each of its addresses, as resolvers do.
//!
//! What came of it goes with a node's reports, so that no configuration reaches the next nameserver that has silenced this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wire::{UDP_BYTES_PLAIN, rcode, rtype};

/// How often it asks.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it asks for one verdict: a machine may be busy for a moment, and a limit of answers may drop every second one.
const TRIES: usize = 3;
/// An older verdict is none: who should have asked does not live. Less than control waits before another nameserver's turn.
const STALE: Duration = Duration::from_secs(4);

/// What it has found last.
pub(crate) struct SelfCheck(Mutex<(Instant, Option<String>)>);

impl SelfCheck {
    pub(crate) fn new() -> SelfCheck {
        SelfCheck(Mutex::new((Instant::now(), None)))
    }

    pub(crate) fn found(&self, unwell: Option<String>) {
        *self.0.lock() = (Instant::now(), unwell);
    }

    /// Why it does not answer, if so: a sentence.
    pub(crate) fn unwell(&self) -> Option<String> {
        let (at, unwell) = &*self.0.lock();
        match at.elapsed() {
            old if old > STALE => Some(format!("it has not asked itself for {} s", old.as_secs())),
            _ => unwell.clone(),
        }
    }
}

/// The zone in force: its name on the wire, empty without one, and its serial number.
pub(crate) type InForce = (Vec<u8>, u32);

/// Asks at all addresses; why one of them does not answer. `in_force`: asked before and after each question, as it may change between.
pub(crate) async fn ask_all(
    addresses: &[SocketAddr],
    in_force: impl Fn() -> InForce + Clone + Send + Sync + 'static,
) -> Option<String> {
    let mut asked = JoinSet::new();
    for address in addresses {
        let (address, in_force) = (reachable(*address), in_force.clone());
        asked.spawn(async move {
            let mut why = None;
            for _ in 0..TRIES {
                why = ask(address, &in_force).await.err();
                if why.is_none() {
                    break;
                }
            }
            why.map(|why| format!("asked for its zone's SOA by UDP at {address}, {TRIES} times, it {why}"))
        });
    }
    asked.join_all().await.into_iter().flatten().next()
}

/// Where a server that listens at any address can be asked.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(address: SocketAddr, in_force: &impl Fn() -> InForce) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("could not be asked: {error}");
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    let (apex, before) = in_force();
    // Its own port says which question an answer belongs to; nobody else can send to it.
    socket.send(&question(&apex)).await.map_err(failed)?;
    let mut answer = [0; UDP_BYTES_PLAIN];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await;
    let length = length.map_err(|_| format!("gave no answer in {} ms", PATIENCE.as_millis()))?;
    let answer = &answer[..length.map_err(failed)?];
    let (apex_now, after) = in_force();
    match read(answer) {
        // A limit of answers for its network: it lives.
        Ok(Answer::Truncated) => Ok(()),
        Ok(Answer::Code(rcode::REFUSED)) if apex.is_empty() || apex_now.is_empty() => Ok(()),
        Ok(Answer::Code(code)) => Err(format!("answered with code {code} (RFC 1035 §4.1.1) and no SOA")),
        Ok(Answer::Serial(serial)) if serial == before || serial == after => Ok(()),
        Ok(Answer::Serial(serial)) => Err(format!("answered from serial number {serial}, wanted {after}")),
        Err(()) => Err("answered what is no answer".to_owned()),
    }
}

/// A query for the SOA of a name, of the root without one (RFC 1035 §4.1).
fn question(apex: &[u8]) -> Vec<u8> {
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(if apex.is_empty() { &[0] } else { apex });
    query.extend_from_slice(&rtype::SOA.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

#[derive(Debug, PartialEq)]
enum Answer {
    Truncated,
    /// There is no SOA in it, and this code.
    Code(u16),
    /// Of the SOA.
    Serial(u32),
}

/// Reads an answer of this server: its records point at the question for their owner (RFC 1035 §4.1.4).
fn read(answer: &[u8]) -> Result<Answer, ()> {
    let header: &[u8; 12] = answer.first_chunk().ok_or(())?;
    if header[2] & 0x80 == 0 {
        return Err(());
    }
    if header[2] & 0x02 != 0 {
        return Ok(Answer::Truncated);
    }
    let code = u16::from(header[3] & 0xf);
    if code != rcode::NOERROR || header[6..8] == [0, 0] {
        return Ok(Answer::Code(code));
    }
    let mut at = 12;
    loop {
        let length = usize::from(*answer.get(at).ok_or(())?);
        at += 1 + length;
        if length == 0 {
            break;
        }
    }
    // Behind the question's type and class: owner, type, class, TTL, length.
    let record = answer.get(at + 4..).ok_or(())?;
    let fixed: &[u8; 12] = record.first_chunk().ok_or(())?;
    let length = usize::from(u16::from_be_bytes([fixed[10], fixed[11]]));
    let data = record.get(12..12 + length).ok_or(())?;
    if fixed[0] & 0xc0 != 0xc0 || fixed[2..4] != rtype::SOA.to_be_bytes() {
        return Err(());
    }
    // The last five numbers of it; the serial is the first (§3.3.13).
    let numbers: &[u8; 20] = data.last_chunk().ok_or(())?;
    Ok(Answer::Serial(u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::respond::{Now, Responder, Transport, fuzzing};

    #[test]
    fn its_own_answers_are_read_and_what_is_none_is_not() {
        let state = fuzzing::state();
        let mut answer = Vec::new();
        let mut ask = |query: &[u8]| {
            let from = "127.0.0.1".parse().unwrap();
            let now = Now { wall_secs: 1_800_000_000, mono_ms: 1 };
            Responder::new(Default::default(), 0).respond(
                &state,
                query,
                from,
                Transport::Udp,
                now,
                &mut answer,
            );
            answer.clone()
        };
        let soa = ask(&question(&state.zone.apex));
        let wanted = state.zone.soa.records[0].last_chunk::<20>().unwrap();
        let serial = u32::from_be_bytes(*wanted.first_chunk().unwrap());
        assert_eq!(read(&soa), Ok(Answer::Serial(serial)));
        assert_eq!(read(&ask(&question(&[]))), Ok(Answer::Code(rcode::REFUSED)));
        for cut in 0..soa.len() {
            assert!(read(&soa[..cut]).is_err(), "{cut}");
        }
        assert_eq!(read(&question(&state.zone.apex)), Err(()), "a question");
        let mut truncated = soa;
        truncated[2] |= 0x02;
        assert_eq!(read(&truncated), Ok(Answer::Truncated));
    }

    #[test]
    fn who_listens_and_does_not_answer_is_found_and_so_is_who_answers_of_old() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let in_force = || (b"\x03cdn\x07example\0".to_vec(), 7);
            let why = ask_all(&[address], in_force).await.unwrap();
            assert!(why.contains(&address.to_string()) && why.ends_with("gave no answer in 500 ms"), "{why}");
            let mut query = [0; 512];
            while server.try_recv_from(&mut query).is_ok() {}
            let answering = tokio::spawn(async move {
                loop {
                    let (length, from) = server.recv_from(&mut query).await.unwrap();
                    let mut answer = query[..length].to_vec();
                    (answer[2], answer[7]) = (0x84, 1);
                    answer.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
                    answer.extend([0, 0, 0, 6].into_iter().chain([0; 16]));
                    server.send_to(&answer, from).await.unwrap();
                }
            });
            let why = ask_all(&[address], in_force).await.unwrap();
            assert!(why.ends_with("answered from serial number 6, wanted 7"), "{why}");
            assert_eq!(ask_all(&[address], || (b"\x03cdn\x07example\0".to_vec(), 6)).await, None);
            answering.abort();
        });
        assert_eq!(SelfCheck::new().unwell(), None);
    }
}
