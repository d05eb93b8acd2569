//! The resolvers of the visitors' cities: each asks the demo's router in the name of its city's network (RFC 7871), and believes an answer
//! for as long as its TTL says. The way from city to router takes no time here; the rest is as on the internet.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::opt::ClientSubnet;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::A;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::map;
use crate::failure::Failure;

/// Time for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often is asked before it is given up.
const TRIES: usize = 3;
/// Between two looks at a router that has just begun.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of an answer, as the query says.
const ANSWER_BYTES_MAX: usize = 1232;

/// Where the router listens, and what each city has been told.
pub(super) struct Resolvers {
    router: SocketAddr,
    name: &'static str,
    known: RefCell<Vec<Option<Known>>>,
}

#[derive(Clone)]
struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Resolvers {
    /// For a name of the router's zone.
    pub(super) fn new(router: SocketAddr, name: &'static str) -> Self {
        Resolvers { router, name, known: RefCell::new(vec![None; map::CITIES.len()]) }
    }

    /// Where a city's visitors are sent: one address at least. What is known serves on while the router gives no answer.
    ///
    /// # Errors
    /// There is no answer, and nothing was known: why.
    pub(super) async fn resolve(&self, city: usize) -> Result<Vec<IpAddr>, String> {
        let known = self.known.borrow()[city].clone();
        if let Some(known) = known.as_ref().filter(|known| known.until > Instant::now()) {
            return Ok(known.addresses.clone());
        }
        match (self.ask(city).await, known) {
            (Ok(found), _) => {
                self.known.borrow_mut()[city] = Some(found.clone());
                Ok(found.addresses)
            }
            (Err(_), Some(known)) => Ok(known.addresses),
            (Err(why), None) => Err(why),
        }
    }

    /// What the router says now, whatever was believed.
    ///
    /// # Errors
    /// No answer, or one without an address: why.
    pub(super) async fn ask_anew(&self, city: usize) -> Result<Vec<IpAddr>, String> {
        Ok(self.ask(city).await?.addresses)
    }

    /// Waits until the router says where each city's visitors are sent: it may listen before it knows.
    ///
    /// # Errors
    /// It doesn't, for as long as `patience`.
    pub(super) async fn wait(&self, patience: Duration) -> Result<(), Failure> {
        let until = Instant::now() + patience;
        for city in 0..map::CITIES.len() {
            while let Err(why) = self.ask(city).await {
                if Instant::now() > until {
                    let message = format!("waited {} s for the router: {why}", patience.as_secs());
                    return Err(Failure::new(message, "start it again on a machine that is less busy"));
                }
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn ask(&self, city: usize) -> Result<Known, String> {
        let query = query(self.name, city).ok_or("the query cannot be made")?;
        let mut why = String::new();
        for _ in 0..TRIES {
            match timeout(PATIENCE, exchange(self.router, &query)).await {
                Ok(Ok(answer)) => return read(&answer),
                Ok(Err(error)) => why = format!("router at {}: {error}", self.router),
                Err(_) => {
                    why = format!("router at {}: no answer in {} ms", self.router, PATIENCE.as_millis())
                }
            }
        }
        Err(why)
    }
}

async fn exchange(router: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    // A port of its own for each query, and connected: nobody else's answer comes in.
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(router).await?;
    socket.send(query).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

fn query(name: &str, city: usize) -> Option<Vec<u8>> {
    let mut builder = MessageBuilder::new_vec().question();
    builder.push((Name::vec_from_str(name).ok()?, Rtype::A)).ok()?;
    let mut builder = builder.additional();
    let subnet = ClientSubnet::new(map::NETWORK_BITS, 0, map::network(city).into());
    let add = |opt: &mut domain::base::message_builder::OptBuilder<'_, _>| {
        opt.set_udp_payload_size(ANSWER_BYTES_MAX as u16);
        opt.push(&subnet)
    };
    builder.opt(add).ok()?;
    Some(builder.finish())
}

fn read(answer: &[u8]) -> Result<Known, String> {
    let message = Message::from_octets(answer).map_err(|error| format!("the router's answer: {error}"))?;
    let rcode = message.header().rcode();
    if rcode != Rcode::NOERROR {
        return Err(format!("the router answers {rcode}"));
    }
    let section = message.answer().map_err(|error| format!("the router's answer: {error}"))?;
    let mut known = Known { addresses: Vec::new(), until: Instant::now() };
    for record in section.limit_to_in::<A>().flatten() {
        known.addresses.push(IpAddr::V4(record.data().addr()));
        known.until = Instant::now() + Duration::from_secs(record.ttl().as_secs().into());
    }
    match known.addresses.is_empty() {
        true => Err("the router's answer has no address".to_owned()),
        false => Ok(known),
    }
}
