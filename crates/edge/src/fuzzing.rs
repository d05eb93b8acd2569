//! What must hold for any bytes that the internet sends to the edge's own parsers, as functions that panic when it does
//! not. Compiled for fuzzing only (`--cfg fuzzing`); the targets in `fuzz/` call it. What heads and bodies mean is not
//! judged here: `semantics` has targets of its own.

use bytes::Bytes;
use semantics::fields::is_tchar;

use semantics::Wall;

use crate::Clock;
use crate::connection::frames::{Conduct, FrameScan};
use crate::h1::body::{BadBody, BodyDecoder, Decoded, Framing};
use crate::h1::{HeadScan, Scanned, parse_head};
use crate::h3::frames::{BadFrame, Frame, Frames, On};
use crate::h3::{self, qpack};
use crate::measure;
use crate::proxy_protocol::{self, Parsed};
use crate::rum;
use crate::tiers;
use crate::tls::Staple;

/// A request head: found at the same place however the network cuts it, and well formed once it is accepted.
pub fn h1_head(bytes: &[u8], cuts: &[u8]) {
    let at_once = HeadScan::default().scan(bytes);
    let mut scan = HeadScan::default();
    let mut in_pieces = Scanned::More;
    for end in ends(bytes.len(), cuts) {
        in_pieces = scan.scan(&bytes[..end]);
        if in_pieces != Scanned::More {
            break;
        }
    }
    assert_eq!(in_pieces, at_once);
    let Scanned::Head { end } = at_once else { return };
    assert!(bytes[..end].ends_with(b"\r\n\r\n"));
    let Ok(head) = parse_head(&bytes[..end]) else { return };
    assert!(!head.method.is_empty() && head.method.bytes().all(semantics::fields::is_tchar), "{head:?}");
    assert!(
        !head.target.is_empty() && !head.target.bytes().any(|byte| byte <= b' ' || byte == 0x7f),
        "{head:?}"
    );
    let mut again = format!("{} {} {}\r\n", head.method, head.target, head.protocol.as_str()).into_bytes();
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && name.iter().all(|&byte| semantics::fields::is_tchar(byte)), "{head:?}");
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{head:?}");
        assert_eq!(semantics::fields::trim(value), value, "{head:?}");
        for part in [name, b": ", value, b"\r\n"] {
            again.extend_from_slice(part);
        }
    }
    again.extend_from_slice(b"\r\n");
    // Whoever gets what was understood understands the same.
    let Ok(read) = parse_head(&again) else { panic!("{head:?} is refused when written again") };
    assert_eq!((read.method, read.target, read.protocol), (head.method, head.target, head.protocol));
    assert_eq!(read.fields, head.fields);
}

/// A request body: the same content, end and error however it is cut and however little is taken at a time.
/// - `counted`: the Content-Length; `None` is the chunked coding.
pub fn h1_body(counted: Option<u16>, bytes: &[u8], cuts: &[u8], data_max: u8) {
    let framing = match counted {
        None => Framing::Chunked,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(u64::from(length)),
    };
    let at_once = decode(framing, bytes, &[], usize::MAX);
    let in_pieces = decode(framing, bytes, cuts, usize::from(data_max).max(1));
    assert_eq!(in_pieces, at_once);
    if let Some(length) = counted {
        let held = bytes.len().min(usize::from(length));
        assert_eq!(at_once.content, bytes[..held]);
        assert_eq!(at_once.rest, bytes[held..]);
        assert_eq!(at_once.end, Ok(held == usize::from(length)));
    }
    assert!(bytes.ends_with(&at_once.rest));
    assert!(at_once.content.len() + at_once.rest.len() <= bytes.len());

    // What is well coded, cut into chunks at the same places, is read as what it was made of.
    let mut coded = Vec::new();
    let mut begin = 0;
    for end in ends(bytes.len(), cuts) {
        if end > begin {
            crate::h1::write_chunk_size(&mut coded, end - begin);
            coded.extend_from_slice(&bytes[begin..end]);
            coded.extend_from_slice(b"\r\n");
        }
        begin = end;
    }
    coded.extend_from_slice(b"0\r\n\r\nnext");
    let read = decode(Framing::Chunked, &coded, cuts, usize::from(data_max).max(1));
    assert_eq!(read, Read { content: bytes.to_vec(), rest: b"next".to_vec(), end: Ok(true) });
}

/// The bytes of a request stream, or of a control stream: the same frames and the same end however the network cuts them,
/// and no field section longer than allowed.
pub fn h3_frames(is_request: bool, bytes: &[u8], cuts: &[u8]) {
    const SECTION_BYTES_MAX: u64 = 512;
    let on = if is_request { On::Request { section_bytes_max: SECTION_BYTES_MAX } } else { On::Control };
    let at_once = frames_of(on, bytes, &[]);
    assert_eq!(frames_of(on, bytes, cuts), at_once);
    for frame in &at_once.0 {
        match frame {
            Frame::Section(section) => assert!(is_request && section.len() as u64 <= SECTION_BYTES_MAX),
            Frame::Data(data) => assert!(is_request && !data.is_empty()),
            Frame::Settings(settings) => drop(h3::frames::check_settings(settings)),
            Frame::PriorityUpdate(_) | Frame::AboutPush { .. } => assert!(!is_request),
        }
    }
}

/// All frames, with content that belongs together in one; and whether the stream may end there.
fn frames_of(on: On, bytes: &[u8], cuts: &[u8]) -> (Vec<Frame>, Result<bool, BadFrame>) {
    let (mut frames, mut all) = (Frames::new(on), Vec::new());
    let (mut begin, mut is_in_data) = (0, false);
    for end in ends(bytes.len(), cuts) {
        frames.push(Bytes::copy_from_slice(&bytes[begin..end]));
        begin = end;
        loop {
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(bad) => return (all, Err(bad)),
            };
            match (all.last_mut(), &frame) {
                (Some(Frame::Data(before)), Frame::Data(more)) if is_in_data => {
                    *before = [&before[..], more].concat().into();
                }
                _ => all.push(frame),
            }
            is_in_data = matches!(all.last(), Some(Frame::Data(_)));
        }
    }
    (all, Ok(frames.is_between()))
}

/// A field section: no larger than allowed when it is read, the same when it is written again, and well formed once it is
/// accepted as a request or as trailers.
pub fn h3_section(bytes: &[u8]) {
    const SIZE_MAX: u64 = 4096;
    let _ = qpack::Instructions::of_encoder(true).read(bytes);
    let _ = qpack::Instructions::of_encoder(false).read(bytes);
    let Ok(section) = qpack::decode(bytes, SIZE_MAX) else { return };
    let size: usize = section.lines().map(|(name, value)| name.len() + value.len() + 32).sum();
    assert!(size as u64 <= SIZE_MAX);
    let mut again = Vec::new();
    qpack::begin(&mut again);
    section.lines().for_each(|(name, value)| qpack::write_line(&mut again, name, value));
    let read = qpack::decode(&again, SIZE_MAX).expect("what we write can be read");
    for ((name, value), (name_again, value_again)) in section.lines().zip(read.lines()) {
        assert_eq!((name.to_ascii_lowercase().as_slice(), value), (name_again, value_again));
    }
    assert_eq!(section.lines().count(), read.lines().count());
    if let Ok((pseudo, count)) = h3::request::pseudo(&section) {
        assert!(!pseudo.method.contains(' ') && !pseudo.target.contains(' '));
        assert!(section.lines().skip(count).all(|(name, _)| name.iter().all(|&byte| is_tchar(byte))));
    }
    if let Ok(fields) = h3::request::trailers(&section) {
        assert_eq!(fields.len(), section.lines().count());
    }
}

/// What an HTTP/2 visitor sends: the same frames, in the same state, and within the same limits however it is cut.
pub fn h2_frames(bytes: &[u8], cuts: &[u8]) {
    let find = |cuts: &[u8]| {
        let conduct = Conduct::new(Clock::manual(Wall(0)));
        let (mut scan, mut begin, mut seen) = (FrameScan::of_server(), 0, Vec::new());
        for end in ends(bytes.len(), cuts) {
            scan.scan(&bytes[begin..end], |kind, flags| seen.push((kind, flags)));
            conduct.receive(&bytes[begin..end]);
            begin = end;
        }
        (seen, scan, conduct.is_heading(), conduct.exceeded())
    };
    let at_once = find(&[]);
    assert!(at_once.0.len() <= bytes.len() / 9);
    assert_eq!(find(cuts), at_once);
}

/// An OCSP response about the certificate with the number 5: read or refused, and nothing may follow it.
pub fn ocsp(der: &[u8]) {
    let Ok(staple) = Staple::read(der, &[5]) else { return };
    assert_eq!(staple.der(), der);
    assert_eq!(Staple::read(der, &[0, 5]), Ok(staple));
    assert!(
        Staple::read(&[der, &[0]].concat(), &[5]).is_err()
            && Staple::read(&der[..der.len() - 1], &[5]).is_err()
    );
}

/// What an edge tells another of a request: whatever the fields say, none of those that only edges say to each other is left once it
/// is taken for one, and all of them are once they are stripped from a stranger's.
pub fn tier_request(lines: &[(&str, &[u8])]) {
    let mut fields = semantics::Fields::new();
    for (name, value) in lines {
        let _ = fields.append(name, value);
    }
    let mut stripped = fields.clone();
    tiers::strip(&mut stripped);
    assert!(stripped.iter().all(|(name, _)| !tiers::is_ours(name)));
    if tiers::Asked::take(&mut fields).is_some() {
        assert!(fields.iter().all(|(name, _)| !tiers::is_ours(name)));
        assert!(tiers::Asked::take(&mut fields).is_none(), "nobody is told twice");
    }
}

/// A PROXY header: decided as soon as it is complete, and not otherwise by what follows it.
pub fn proxy_protocol(bytes: &[u8]) {
    let whole = proxy_protocol::parse(bytes);
    let mut decided = Ok(Parsed::More);
    for end in 0..bytes.len() {
        let part = proxy_protocol::parse(&bytes[..end]);
        if decided == Ok(Parsed::More) {
            if let Ok(Parsed::Header { length, .. }) = &part {
                assert_eq!(*length, end);
            }
            decided = part;
        } else {
            assert_eq!(part, decided);
        }
    }
    if decided != Ok(Parsed::More) {
        assert_eq!(whole, decided);
    } else if let Ok(Parsed::Header { length, .. }) = whole {
        assert_eq!(length, bytes.len());
    }
}

/// What came of decoding.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    content: Vec<u8>,
    /// What was not taken: of the next request, of a line that is not complete, or from the fault on.
    rest: Vec<u8>,
    /// Whether the body was complete.
    end: Result<bool, BadBody>,
}

fn decode(framing: Framing, bytes: &[u8], cuts: &[u8], data_max: usize) -> Read {
    let mut decoder = BodyDecoder::new(framing);
    let (mut content, mut buffer, mut fed) = (Vec::new(), Vec::new(), 0);
    let mut ends = ends(bytes.len(), cuts);
    let end = loop {
        match decoder.decode(&mut buffer, data_max) {
            Ok(Decoded::Data(data)) => {
                assert!(!data.is_empty() && data.len() <= data_max);
                content.extend_from_slice(&data);
            }
            Ok(Decoded::End) => break Ok(true),
            Ok(Decoded::More) => match ends.next() {
                Some(end) => {
                    buffer.extend_from_slice(&bytes[fed..end]);
                    fed = end;
                }
                None => break Ok(false),
            },
            Err(bad) => break Err(bad),
        }
    };
    assert_eq!(decoder.is_done(), end == Ok(true));
    buffer.extend_from_slice(&bytes[fed..]);
    Read { content, rest: buffer, end }
}

/// Where pieces of something `length` bytes long end: after as many bytes each as `cuts` says (at least one), the rest
/// as a last piece.
fn ends(length: usize, cuts: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    let cuts = cuts.iter().map(move |&cut| {
        at = (at + usize::from(cut).max(1)).min(length);
        at
    });
    cuts.take_while(move |&end| end < length).chain((length > 0).then_some(length))
}

/// What a beacon reports, after a token of the right form: what is accepted has times within bounds, and each PoP once.
pub fn beacon_report(text: &str) {
    for query in [text.to_owned(), format!("{:058x}&{text}", 1)] {
        let Some((_, results)) = measure::read_report(&query) else { continue };
        assert!((1..=4).contains(&results.len()));
        for (index, (pop, ms)) in results.iter().enumerate() {
            assert!(ms.is_none_or(|ms| ms > 0.0 && ms <= 2_000.0));
            assert!(results[..index].iter().all(|(other, _)| other != pop));
        }
    }
}

/// What a browser tells of a page view, after a token of the right form: what is accepted is within its bounds.
pub fn page_view(text: &str) {
    for told in [text.to_owned(), format!("{:058x}&{text}", 1)] {
        let Some(told) = rum::read_view(&told) else { continue };
        assert!(told.path.starts_with('/') && told.path.len() <= 1_024 && !told.path.contains(' '));
        for (metric, value) in stats::rum::Metric::ALL.iter().zip(told.view) {
            assert!(value.is_none_or(|value| value <= stats::rum::Metric::max(*metric)));
        }
    }
}
