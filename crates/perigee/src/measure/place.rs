//! Where visitors are, and by what means this machine is put there.

use std::time::Duration;

use clap::ValueEnum;
use model::units::parse_duration;

use super::packets::Shape;

/// Bytes of a place's name: what control keeps.
const NAME_BYTES_MAX: usize = 100;

/// Longest round trip.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(10);

/// Bits a second that a line may be said to carry: a modem's, and what this process carries without being the bottleneck itself.
const RATE_MIN: f64 = 32e3;
const RATE_MAX: f64 = 1e9;

/// Largest share of packets that may be lost: above, TCP hardly gets anything across.
const LOSS_MAX: f64 = 0.2;

/// How a place is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Means {
    /// Packet by packet, in a network namespace; needs root and /dev/net/tun
    Packets,
    /// By a relay that delays the bytes of TCP
    Relay,
}

impl Means {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Means::Packets => "emulated at packet level",
            Means::Relay => "emulated by a relay that delays TCP",
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Means::Packets => "packets",
            Means::Relay => "relay",
        }
    }
}

/// Where visitors are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) to_origin: Shape,
    pub(super) to_edges: Shape,
}

impl Place {
    /// Where this machine is: nothing is emulated.
    pub(super) fn here() -> Place {
        Place { name: "here".to_owned(), to_origin: Shape::default(), to_edges: Shape::default() }
    }

    /// Whether it has something that bytes cannot meet.
    pub(super) fn needs_packets(&self) -> bool {
        self.to_origin.rate.is_some() || self.to_origin.loss > 0.0
    }

    /// How far it is, in words, and what its line does otherwise.
    pub(super) fn line(&self) -> String {
        let milliseconds = |shape: Shape| shape.round_trip.as_micros() as f64 / 1e3;
        let mut words = format!(
            "{} ms to the origin, {} ms to the edges",
            milliseconds(self.to_origin),
            milliseconds(self.to_edges)
        );
        if let Some(rate) = self.to_origin.rate {
            words.push_str(&format!(", {} Mbit/s", rate / 1e6));
        }
        if self.to_origin.loss > 0.0 {
            let percent = (self.to_origin.loss * 1e5).round() / 1e3;
            words.push_str(&format!(", {percent} % of packets lost"));
        }
        words
    }

    /// Reads `sydney=280ms/12ms`, `phone=180ms/60ms,9Mbit,0.5%`.
    pub(super) fn parse(text: &str) -> Result<Place, String> {
        let wrong =
            || format!("{text:?} is no place; write e.g. sydney=280ms/12ms or phone=180ms/60ms,9Mbit,0.5%");
        let (name, line) = text.split_once('=').ok_or_else(wrong)?;
        let mut parts = line.split(',').map(str::trim);
        let (far, near) = parts.next().and_then(|times| times.split_once('/')).ok_or_else(wrong)?;
        let (far, near) = (round_trip(far)?, round_trip(near)?);
        let mut shape = Shape::default();
        for part in parts {
            if let Some(percent) = part.strip_suffix('%') {
                let loss = percent.trim().parse().ok().map(|percent: f64| percent / 100.0);
                let most = || {
                    format!("{part:?} is no loss; write a share of packets from 0% to {}%", LOSS_MAX * 100.0)
                };
                shape.loss = loss.filter(|loss| (0.0..=LOSS_MAX).contains(loss)).ok_or_else(most)?;
            } else {
                let rate = [("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)].iter().find_map(|(unit, times)| {
                    Some(part.strip_suffix(unit)?.trim().parse::<f64>().ok()? * times)
                });
                let most =
                    || format!("{part:?} is no rate; write bits a second from 32kbit to 1Gbit, as 9Mbit");
                shape.rate = Some(rate.filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate)).ok_or_else(most)?);
            }
        }
        if name.is_empty() {
            return Err(wrong());
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("a place's name has {} bytes; {NAME_BYTES_MAX} are allowed", name.len()));
        }
        Ok(Place {
            name: name.to_owned(),
            to_origin: Shape { round_trip: far, ..shape },
            to_edges: Shape { round_trip: near, ..shape },
        })
    }
}

fn round_trip(text: &str) -> Result<Duration, String> {
    let time = match text {
        "0" => Duration::ZERO,
        text => parse_duration(text)
            .map_err(|bad| format!("{text:?} {}; write e.g. {}", bad.reason, bad.suggestion))?,
    };
    let most =
        || format!("{text:?} is too far; write a round trip of at most {} s", ROUND_TRIP_MAX.as_secs());
    (time <= ROUND_TRIP_MAX).then_some(time).ok_or_else(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_or_refused() {
        let ms = Duration::from_millis;
        let shape = |round_trip, rate, loss| Shape { round_trip, rate, loss };
        let place = |text| Place::parse(text).map(|place| (place.to_origin, place.to_edges));
        assert_eq!(place("sydney=280ms/0"), Ok((shape(ms(280), None, 0.0), shape(ms(0), None, 0.0))));
        assert_eq!(
            place("phone=180ms/60ms, 9Mbit, 0.5%"),
            Ok((shape(ms(180), Some(9e6), 0.005), shape(ms(60), Some(9e6), 0.005)))
        );
        let long = format!("{}=1s/1s", "a".repeat(101));
        for (bad, wanted) in [
            ("sydney", "no place"),
            ("=1s/1s", "no place"),
            ("far=1s", "no place"),
            ("far=11s/1s", "too far"),
            ("far=soon/1s", "\"soon\""),
            ("far=1s/1s,fast", "no rate"),
            ("far=1s/1s,1bit", "no rate"),
            ("far=1s/1s,NaNMbit", "no rate"),
            ("far=1s/1s,50%", "no loss"),
            ("far=1s/1s,-1%", "no loss"),
            (&*long, "101 bytes"),
        ] {
            assert!(Place::parse(bad).unwrap_err().contains(wanted), "{bad}");
        }
        // What is the same is told in the same words, however it was written.
        let line = |text| Place::parse(text).map(|place| place.line());
        assert_eq!(line("far=1s/10ms,9000kbit,7%"), line("off=1000ms/10ms,9Mbit,7%"));
        assert_eq!(
            line("far=200ms/10ms,9Mbit,7%").unwrap(),
            "200 ms to the origin, 10 ms to the edges, 9 Mbit/s, 7 % of packets lost"
        );
    }
}
