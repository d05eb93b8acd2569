//! Any bytes as an OCSP response: read or refused, and what is read is whole.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The fuzzer does not guess lengths that lie in each other: mostly its bytes are a part of a sound response.
fuzz_target!(|input: (u8, &[u8])| {
    let (depth, bytes) = input;
    let answers = match depth % 4 {
        0 => return edge::fuzzing::ocsp(bytes),
        1 => bytes.to_vec(),
        2 => value(0x30, bytes),
        _ => {
            let id = [&value(0x30, &[]), &value(0x04, &[1]), &value(0x04, &[2]), &value(0x02, &[5])];
            value(0x30, &[&value(0x30, &id.map(Vec::as_slice).concat()), bytes].concat())
        }
    };
    let produced = value(0x18, b"20270101000000Z");
    let data = value(0x30, &[value(0xa2, &[4, 1, 3]), produced, value(0x30, &answers)].concat());
    let basic = value(0x04, &value(0x30, &data));
    let bytes = value(0x30, &[value(0x06, &[0x2b, 6]), basic].concat());
    edge::fuzzing::ocsp(&value(0x30, &[value(0x0a, &[0]), value(0xa0, &bytes)].concat()));
});

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    match length {
        0..0x80 => [&[tag, length as u8], content].concat(),
        0x80..0x100 => [&[tag, 0x81, length as u8], content].concat(),
        _ => [&[tag, 0x82, (length >> 8) as u8, length as u8], content].concat(),
    }
}
