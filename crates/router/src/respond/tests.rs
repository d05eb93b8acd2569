use domain::base::iana::Rcode;
use domain::base::opt::AllOptData;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::AllRecordData;
use proptest::prelude::*;

use super::*;

const NOW: Now = Now { wall_secs: 1_800_000_000, mono_ms: 1_000 };

/// How a query is made; the answers are read by a library that didn't write them.
#[derive(Default)]
struct Ask<'a> {
    subnet: Option<(&'a str, u8)>,
    dnssec: bool,
    compact: bool,
    udp_bytes: u16,
    cookie: Option<&'a [u8]>,
    nsid: bool,
    plain: bool,
}

fn query(name: &str, rtype: u16, ask: &Ask<'_>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((Name::vec_from_str(name).unwrap(), Rtype::from_int(rtype))).unwrap();
    let mut builder = builder.additional();
    if !ask.plain {
        builder
            .opt(|opt| {
                opt.set_udp_payload_size(if ask.udp_bytes == 0 { 1232 } else { ask.udp_bytes });
                opt.set_dnssec_ok(ask.dnssec);
                if let Some((address, bits)) = ask.subnet {
                    let subnet = domain::base::opt::ClientSubnet::new(bits, 0, address.parse().unwrap());
                    opt.push(&subnet)?;
                }
                if let Some(cookie) = ask.cookie {
                    opt.push_raw_option(
                        domain::base::iana::OptionCode::COOKIE,
                        cookie.len() as u16,
                        |target| {
                            use domain::dep::octseq::OctetsBuilder;
                            target.append_slice(cookie)
                        },
                    )?;
                }
                if ask.nsid {
                    opt.push_raw_option(domain::base::iana::OptionCode::NSID, 0, |_| Ok(()))?;
                }
                Ok(())
            })
            .unwrap();
    }
    let mut bytes = builder.finish();
    if ask.compact {
        // The flag is younger than the library.
        let at = bytes.len() - 4;
        bytes[at] |= 0x40;
    }
    bytes
}

fn ask(bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut responder = Responder::new(Arc::default(), 0);
    responder
        .respond(&fuzzing::state(), bytes, "10.2.0.53".parse().unwrap(), transport, NOW, &mut out)
        .then_some(out)
}

/// Code, and each record as `section type content`.
fn answer(name: &str, rtype: u16, how: &Ask<'_>) -> (u16, Vec<String>) {
    let out = ask(&query(name, rtype, how), Transport::Tcp).unwrap();
    let message = Message::from_octets(&out[..]).unwrap();
    let code = match message.opt() {
        Some(opt) => opt.rcode(message.header()).to_int(),
        None => u16::from(message.header().rcode().to_int()),
    };
    let mut lines: Vec<String> = message
        .iter()
        .map(|record| record.unwrap())
        .filter(|(record, _)| record.rtype() != Rtype::OPT)
        .map(|(record, section)| {
            let record = record.to_record::<AllRecordData<_, _>>().unwrap().unwrap();
            let section = &format!("{section:?}").to_lowercase()[..2];
            let content = match record.data() {
                AllRecordData::Rrsig(rrsig) => {
                    format!("over {} labels {}", rrsig.type_covered(), rrsig.labels())
                }
                data => data.to_string(),
            };
            format!("{section} {} {} {content}", record.owner(), record.rtype())
        })
        .collect();
    lines.sort();
    (code, lines)
}

fn subnet(out: &[u8]) -> Option<(String, u8, u8)> {
    let message = Message::from_octets(out).unwrap();
    let opt = message.opt()?;
    opt.opt().iter::<AllOptData<_, _>>().find_map(|option| match option.unwrap() {
        AllOptData::ClientSubnet(subnet) => {
            Some((subnet.addr().to_string(), subnet.source_prefix_len(), subnet.scope_prefix_len()))
        }
        _ => None,
    })
}

#[test]
fn addresses_are_those_of_the_clients_pop() {
    let near = |address, bits| {
        answer("shop.cdn.example", rtype::A, &Ask { subnet: Some((address, bits)), ..Ask::default() }).1
    };
    let fra = ["an shop.cdn.example A 192.0.2.1", "an shop.cdn.example A 192.0.2.2"];
    let nrt = ["an shop.cdn.example A 198.51.100.1"];
    assert_eq!(near("10.1.5.0", 24), fra);
    assert_eq!(near("10.2.5.0", 24), nrt);
    assert_eq!(near("2001:db8:2::", 56), nrt);
    assert_eq!(near("0.0.0.0", 0), nrt, "no subnet, so the resolver's own address counts");
    assert_eq!(
        answer("SHOP.cdn.EXAMPLE", rtype::A, &Ask { plain: true, ..Ask::default() }).1,
        ["an SHOP.cdn.EXAMPLE A 198.51.100.1"]
    );
    assert_eq!(
        answer("a.b.shop.cdn.example", rtype::A, &Ask::default()).1,
        ["an a.b.shop.cdn.example A 198.51.100.1"]
    );
}

#[test]
fn a_spares_address_comes_last_and_is_one_of_all_in_turn() {
    let state = fuzzing::state_with_spares();
    let mut responder = Responder::new(Arc::default(), 0);
    let mut asked = |name: &str, rtype: u16, how: &Ask<'_>, transport: Transport| {
        let mut out = Vec::new();
        let from = "10.2.0.53".parse().unwrap();
        assert!(responder.respond(&state, &query(name, rtype, how), from, transport, NOW, &mut out));
        let scope = subnet(&out).map(|(_, _, scope)| scope);
        let message = Message::from_octets(&out[..]).unwrap();
        assert!(!message.header().tc());
        let records = message.answer().unwrap().map(|record| record.unwrap());
        let lines =
            records.map(|record| match record.to_record::<AllRecordData<_, _>>().unwrap().unwrap().data() {
                AllRecordData::Rrsig(_) => "signature".to_owned(),
                data => data.to_string(),
            });
        (lines.collect::<Vec<_>>(), scope)
    };
    let at = |address| Ask { subnet: Some((address, 24)), ..Ask::default() };
    let (fra, nrt) = (at("10.1.5.0"), at("10.2.5.0"));
    let turns: Vec<_> = (0..4).map(|_| asked("shop.cdn.example", rtype::A, &fra, Transport::Udp).0).collect();
    for turn in &turns {
        let (own, spare) = turn.split_at(2);
        assert_eq!(spare, ["198.51.100.1"], "{turn:?}");
        assert!(own.contains(&"192.0.2.1".to_owned()) && own.contains(&"192.0.2.2".to_owned()), "{turn:?}");
    }
    assert_ne!(turns[0][0], turns[1][0], "its own take turns in front of it");
    let [one, two] = [0, 1].map(|_| asked("shop.cdn.example", rtype::A, &nrt, Transport::Udp).0);
    assert_eq!((&*one[0], &*two[0], one.len(), two.len()), ("198.51.100.1", "198.51.100.1", 2, 2));
    assert_ne!(one[1], two[1], "an edge of the spare's is not asked by all: {one:?} {two:?}");
    // Also by who asks for another type in between, and by connections of which each has its responder.
    let spares = [0, 1].map(|_| {
        asked("shop.cdn.example", rtype::AAAA, &fra, Transport::Udp);
        asked("shop.cdn.example", rtype::A, &nrt, Transport::Udp).0[1].clone()
    });
    assert_ne!(spares[0], spares[1]);
    let begun = [0, 1].map(|turn| {
        let (mut responder, mut out) = (Responder::new(Arc::default(), turn), Vec::new());
        let from = "10.2.0.53".parse().unwrap();
        let bytes = query("shop.cdn.example", rtype::A, &nrt);
        assert!(responder.respond(&state, &bytes, from, Transport::Tcp, NOW, &mut out));
        out
    });
    assert_ne!(begun[0], begun[1]);
    // The scope is that of the PoP, as its spare is the same for all its visitors.
    let plain = ask(&query("shop.cdn.example", rtype::A, &fra), Transport::Udp).unwrap();
    assert_eq!(asked("shop.cdn.example", rtype::A, &fra, Transport::Udp).1, Some(subnet(&plain).unwrap().2));
    // It has none of that type; a PoP by its name, HTTPS, and where another CDN is all that there is else.
    assert_eq!(asked("shop.cdn.example", rtype::AAAA, &fra, Transport::Udp).0, ["2001:db8::1"]);
    assert_eq!(asked("nrt.shop.cdn.example", rtype::A, &fra, Transport::Udp).0, ["198.51.100.1"]);
    assert_eq!(asked("nrt.cdn.example", rtype::A, &fra, Transport::Udp).0, ["198.51.100.1"]);
    assert_eq!(asked("shop.cdn.example", rtype::HTTPS, &nrt, Transport::Udp).0.len(), 1);
    assert_eq!(asked("both.cdn.example", rtype::A, &fra, Transport::Udp).0.len(), 2);
    let plain = Ask { plain: true, ..Ask::default() };
    assert_eq!(asked("shop.cdn.example", rtype::A, &plain, Transport::Udp).0.len(), 2);
}

#[test]
fn other_records_are_answered_too() {
    let lines = |name, rtype| answer(name, rtype, &Ask::default());
    assert_eq!(lines("txt.cdn.example", rtype::TXT).1, ["an txt.cdn.example TXT \"hello\""]);
    assert_eq!(lines("alias.cdn.example", rtype::A).1, ["an alias.cdn.example CNAME shop.cdn.example."]);
    assert_eq!(lines("cdn.example", rtype::NS).1, ["an cdn.example NS ns1.cdn.example."]);
    assert_eq!(lines("cdn.example", rtype::CAA).1, ["an cdn.example CAA 0 issue \"letsencrypt.org\""]);
    assert_eq!(lines("ns1.cdn.example", rtype::A).1, ["an ns1.cdn.example A 192.0.2.53"]);
    assert_eq!(
        lines("shop.cdn.example", rtype::HTTPS).1,
        ["an shop.cdn.example HTTPS 1 . alpn=h2,h3 ipv4hint=198.51.100.1"]
    );
    assert_eq!(lines("cdn.example", rtype::ANY).1.len(), 1);
    assert_eq!(lines("www.other.example", rtype::A), (rcode::REFUSED, vec![]));
    assert_eq!(lines("cdn.example", rtype::AXFR), (rcode::REFUSED, vec![]));
}

#[test]
fn a_pops_name_has_its_addresses_and_what_records_say_beside() {
    let lines = |name, rtype| answer(name, rtype, &Ask::default()).1;
    for name in ["fra.cdn.example", "fra.shop.cdn.example"] {
        let wanted = ["192.0.2.1", "192.0.2.2"].map(|address| format!("an {name} A {address}"));
        assert_eq!(lines(name, rtype::A), wanted);
    }
    assert_eq!(lines("fra.cdn.example", rtype::TXT), ["an fra.cdn.example TXT \"a PoP\""]);
    let (_, signed) = answer("fra.cdn.example", rtype::CAA, &Ask { dnssec: true, ..Ask::default() });
    assert!(signed.iter().any(|line| line.ends_with(". A TXT AAAA RRSIG NSEC HTTPS")), "{signed:?}");
}

#[test]
fn another_cdn_is_a_cname_to_its_visitors_whatever_they_ask_for_and_addresses_where_none_may_stand() {
    let of =
        |name, rtype, address| answer(name, rtype, &Ask { subnet: Some((address, 24)), ..Ask::default() }).1;
    let (ours, others) = ("10.1.5.0", "10.3.5.0");
    for rtype in [rtype::A, rtype::AAAA, rtype::HTTPS, rtype::TXT, rtype::ANY, rtype::CNAME] {
        let wanted = ["an both.cdn.example CNAME shop.other.example."];
        assert_eq!(of("both.cdn.example", rtype, others), wanted, "{rtype}");
    }
    assert_eq!(of("both.cdn.example", rtype::AAAA, ours), ["an both.cdn.example AAAA 2001:db8::1"]);
    let soa = "au cdn.example SOA ns1.cdn.example. hostmaster.cdn.example. 7 7200 3600 1209600 60";
    assert_eq!(of("both.cdn.example", rtype::CNAME, ours), [soa], "it is none to these");
    // The zone's own name has SOA and NS beside: of the other CDN its addresses, and no word on its protocols.
    assert_eq!(of("cdn.example", rtype::A, others), ["an cdn.example A 203.0.113.9"]);
    assert_eq!(of("cdn.example", rtype::HTTPS, others), [soa]);
    assert_eq!(of("cdn.example", rtype::NS, others), ["an cdn.example NS ns1.cdn.example."]);
    for name in ["other.cdn.example", "other.both.cdn.example"] {
        assert_eq!(of(name, rtype::A, ours), [format!("an {name} CNAME shop.other.example.")]);
    }
    assert_eq!(
        of("other.shop.cdn.example", rtype::A, ours).len(),
        2,
        "a site that does not name it does not have it: this is the site's wildcard"
    );
    // The answer depends on the client, so a scope is told also for types that are the same for everybody elsewhere.
    let scoped = |name, rtype| {
        let how = Ask { subnet: Some((others, 24)), ..Ask::default() };
        subnet(&ask(&query(name, rtype, &how), Transport::Tcp).unwrap()).unwrap().2
    };
    assert!(scoped("both.cdn.example", rtype::TXT) > 0);
    assert_eq!(scoped("shop.cdn.example", rtype::TXT), 0);
    let signed = Ask { dnssec: true, subnet: Some((others, 24)), ..Ask::default() };
    assert_eq!(
        answer("both.cdn.example", rtype::A, &signed).1,
        ["an both.cdn.example CNAME shop.other.example.", "an both.cdn.example RRSIG over CNAME labels 3"]
    );
}

#[test]
fn nothing_is_denied_with_the_zones_soa() {
    let soa = "au cdn.example SOA ns1.cdn.example. hostmaster.cdn.example. 7 7200 3600 1209600 60";
    assert_eq!(answer("no.cdn.example", rtype::A, &Ask::default()), (rcode::NXDOMAIN, vec![soa.to_owned()]));
    let nrt = Ask { subnet: Some(("10.2.0.0", 24)), ..Ask::default() };
    assert_eq!(answer("shop.cdn.example", rtype::AAAA, &nrt), (rcode::NOERROR, vec![soa.to_owned()]));
}

#[test]
fn denials_are_compact_and_signed_for_who_wants_that() {
    let signed = Ask { dnssec: true, ..Ask::default() };
    let (code, lines) = answer("no.cdn.example", rtype::A, &signed);
    assert_eq!(code, rcode::NOERROR);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[2], "au no.cdn.example NSEC \\000.no.cdn.example. RRSIG NSEC NXNAME");
    assert_eq!(lines[3], "au no.cdn.example RRSIG over NSEC labels 3");
    let (code, _) = answer("no.cdn.example", rtype::A, &Ask { compact: true, ..signed });
    assert_eq!(code, rcode::NXDOMAIN);
    let (code, lines) = answer("txt.cdn.example", rtype::A, &Ask { dnssec: true, ..Ask::default() });
    assert_eq!(
        (code, &*lines[2]),
        (rcode::NOERROR, "au txt.cdn.example NSEC \\000.txt.cdn.example. TXT RRSIG NSEC")
    );
}

#[test]
fn a_denial_to_one_client_denies_nothing_that_others_have() {
    let nsec = |name, rtype, address| {
        let how = Ask { dnssec: true, subnet: Some((address, 24)), ..Ask::default() };
        let (code, lines) = answer(name, rtype, &how);
        assert_eq!(code, rcode::NOERROR);
        let of = format!("au {name} NSEC \\000.{name}. ");
        lines
            .iter()
            .find_map(|line| line.strip_prefix(&*of))
            .unwrap_or_else(|| panic!("{lines:?}"))
            .to_owned()
    };
    // Nobody there has IPv6. A resolver may keep that for all its clients (RFC 8198).
    for rtype in [rtype::TXT, rtype::CAA] {
        assert_eq!(nsec("shop.cdn.example", rtype, "10.2.5.0"), "A AAAA RRSIG NSEC HTTPS", "{rtype}");
    }
    assert_eq!(nsec("shop.cdn.example", rtype::AAAA, "10.2.5.0"), "A RRSIG NSEC HTTPS");
    assert_eq!(
        nsec("nrt.shop.cdn.example", rtype::TXT, "10.2.5.0"),
        "A RRSIG NSEC HTTPS",
        "it is the same to all"
    );
    assert!(nsec("cdn.example", rtype::TXT, "10.3.5.0").starts_with("A NS SOA AAAA RRSIG NSEC DNSKEY"));
}

#[test]
fn what_denials_are_made_of_may_be_asked_for() {
    let signed = Ask { dnssec: true, ..Ask::default() };
    for (name, types) in [
        ("shop.cdn.example", "A AAAA RRSIG NSEC HTTPS"),
        ("txt.cdn.example", "TXT RRSIG NSEC"),
        ("no.cdn.example", "RRSIG NSEC NXNAME"),
    ] {
        let wanted =
            [format!("an {name} NSEC \\000.{name}. {types}"), format!("an {name} RRSIG over NSEC labels 3")];
        assert_eq!(answer(name, rtype::NSEC, &signed), (rcode::NOERROR, wanted.to_vec()));
    }
    let (_, of_rrsig) = answer("shop.cdn.example", rtype::RRSIG, &signed);
    assert_eq!(of_rrsig, answer("shop.cdn.example", rtype::ANY, &signed).1);
    assert_eq!(of_rrsig[1], "an shop.cdn.example RRSIG over HINFO labels 3");
    // Who wants no signatures is not told any, and that there are none is nothing to be proven.
    for rtype in [rtype::NSEC, rtype::RRSIG] {
        let (code, plain) = answer("shop.cdn.example", rtype, &Ask::default());
        assert!(code == rcode::NOERROR && plain.len() == 1 && plain[0].contains(" SOA "), "{plain:?}");
    }
    for how in [signed, Ask::default()] {
        let out = ask(&query("shop.cdn.example", rtype::NXNAME, &how), Transport::Udp).unwrap();
        assert_eq!(u16::from(out[3] & 0xf), rcode::FORMERR, "RFC 9824 §3.5");
    }
}

#[test]
fn every_signature_covers_its_records() {
    // Each of the spare's addresses makes another set, whose signature is kept too: Tokyo's visitors get Frankfurt's two.
    for subnet in ["10.1.0.0", "10.2.0.0"] {
        check_signatures(&fuzzing::state(), subnet, 1);
        check_signatures(&fuzzing::state_with_spares(), subnet, 3);
    }
}

#[test]
fn as_many_addresses_as_there_may_be_and_a_spares_fit_into_a_packet_with_their_signature() {
    let edges = |pop: u8| -> Vec<String> {
        (0..ADDRESSES_MAX + 2).map(|host| format!("\"2001:db8:{pop}:1111:2222:3333:4444:{host}\"")).collect()
    };
    let config = fuzzing::CONFIG
        .replace("\"192.0.2.1\", \"192.0.2.2\", \"2001:db8::1\"", &edges(1).join(", "))
        .replace("\"198.51.100.1\"", &edges(2).join(", "));
    let (mut responder, mut out) = (Responder::new(Arc::default(), 0), Vec::new());
    let how = Ask { dnssec: true, nsid: true, cookie: Some(b"12345678"), ..Ask::default() };
    let bytes = query("a-label-of-some-length.shop.cdn.example", rtype::AAAA, &how);
    let from = "10.2.0.53".parse().unwrap();
    assert!(responder.respond(&fuzzing::state_of(&config, 1e3), &bytes, from, Transport::Udp, NOW, &mut out));
    let message = Message::from_octets(&out[..]).unwrap();
    assert!(!message.header().tc() && out.len() <= UDP_BYTES_MAX, "{}", out.len());
    assert_eq!(usize::from(message.header_counts().ancount()), ADDRESSES_MAX + 1 + 1);
}

fn check_signatures(state: &State, subnet: &str, rounds: usize) {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    let signed = Ask { dnssec: true, subnet: Some((subnet, 24)), ..Ask::default() };
    let mut responder = Responder::new(Arc::default(), 0);
    let dnskey = state.signer.as_ref().unwrap().dnskey();
    let mut point = vec![4];
    point.extend(&dnskey[4..]);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    for (name, rtype) in [
        ("shop.cdn.example", rtype::A),
        ("x.shop.cdn.example", rtype::A),
        ("shop.cdn.example", rtype::HTTPS),
        ("cdn.example", rtype::DNSKEY),
        ("cdn.example", rtype::CDS),
        ("cdn.example", rtype::ANY),
        ("alias.cdn.example", rtype::A),
        ("no.cdn.example", rtype::A),
        ("no.cdn.example", rtype::NSEC),
        ("txt.cdn.example", rtype::NSEC),
        ("txt.cdn.example", rtype::RRSIG),
        ("other.cdn.example", rtype::AAAA),
        ("other.both.cdn.example", rtype::TXT),
    ]
    .repeat(rounds)
    {
        let mut out = Vec::new();
        let (bytes, from) = (query(name, rtype, &signed), "10.2.0.53".parse().unwrap());
        assert!(responder.respond(state, &bytes, from, Transport::Tcp, NOW, &mut out));
        let message = Message::from_octets(&out[..]).unwrap();
        let records: Vec<_> = message.iter().map(|record| record.unwrap().0).collect();
        let mut checked = 0;
        for record in records.iter().filter(|record| record.rtype() == Rtype::RRSIG) {
            let of =
                record.to_record::<domain::rdata::Rrsig<_, domain::base::ParsedName<_>>>().unwrap().unwrap();
            let rrsig = of.data();
            // What is signed: the signature's own fields, then the records in canonical order (RFC 4034 §3.1.8.1).
            use domain::base::rdata::ComposeRecordData;
            let mut covered = Vec::new();
            rrsig.compose_canonical_rdata(&mut covered).unwrap();
            covered.truncate(covered.len() - rrsig.signature().len());
            let mut set: Vec<Vec<u8>> = records
                .iter()
                .filter(|other| other.rtype() == rrsig.type_covered() && other.owner() == record.owner())
                .map(|other| {
                    let mut data = Vec::new();
                    let other = other.to_record::<AllRecordData<_, _>>().unwrap().unwrap();
                    other.data().compose_canonical_rdata(&mut data).unwrap();
                    data
                })
                .collect();
            set.sort();
            let owner = crate::wire::name_of(&record.owner().to_string()).unwrap();
            for data in &set {
                write_record(
                    &mut covered,
                    &owner,
                    rrsig.type_covered().to_int(),
                    rrsig.original_ttl().as_secs(),
                    data,
                );
            }
            assert!(!set.is_empty());
            key.verify(&covered, rrsig.signature())
                .unwrap_or_else(|_| panic!("{name} {rtype} {}", rrsig.type_covered()));
            checked += 1;
        }
        assert!(checked >= 1, "{name} {rtype}");
    }
}

#[test]
fn what_does_not_fit_into_a_packet_is_told_to_come_by_tcp() {
    let truncated = |how: &Ask<'_>, transport| {
        let out = ask(&query("long.cdn.example", rtype::TXT, how), transport).unwrap();
        let message = Message::from_octets(&out[..]).unwrap();
        (message.header().tc(), message.header_counts().ancount())
    };
    assert_eq!(truncated(&Ask { plain: true, ..Ask::default() }, Transport::Udp), (true, 0));
    assert_eq!(truncated(&Ask::default(), Transport::Udp), (false, 2));
    assert_eq!(truncated(&Ask { udp_bytes: 100, ..Ask::default() }, Transport::Udp), (true, 0));
    assert_eq!(truncated(&Ask { plain: true, ..Ask::default() }, Transport::Tcp), (false, 2));
}

#[test]
fn cookies_are_given_and_known_again() {
    let state = fuzzing::state();
    let from: IpAddr = "10.2.0.53".parse().unwrap();
    let client = b"12345678";
    let cookie = server_cookie(&state, client, from, NOW.wall_secs);
    let both = [&client[..], &cookie[..]].concat();
    let known = |option: &[u8], from: &str, secs: u32| {
        let bytes = query("cdn.example", rtype::SOA, &Ask { cookie: Some(option), ..Ask::default() });
        let query = read(&bytes).ok().unwrap();
        cookie_is_ours(&state, &query.edns.unwrap(), from.parse().unwrap(), Now { wall_secs: secs, ..NOW })
    };
    assert!(known(&both, "10.2.0.53", NOW.wall_secs + 3_600));
    assert!(!known(&both, "10.2.0.53", NOW.wall_secs + 3_601) && !known(&both, "10.2.0.54", NOW.wall_secs));
    assert!(!known(client, "10.2.0.53", NOW.wall_secs));
    let out = ask(
        &query("cdn.example", rtype::SOA, &Ask { cookie: Some(client), nsid: true, ..Ask::default() }),
        Transport::Udp,
    )
    .unwrap();
    assert!(out.windows(24).any(|part| part == both), "the cookie comes back with ours");
    assert!(out.windows(7).any(|part| part == b"\0\x03\0\x03ns1"), "and the server's name");
    // A cookie of a wrong length is malformed (RFC 7873 §5.2.2).
    let out = ask(
        &query("cdn.example", rtype::SOA, &Ask { cookie: Some(b"123456789"), ..Ask::default() }),
        Transport::Udp,
    )
    .unwrap();
    assert_eq!(out[3] & 0xf, rcode::FORMERR as u8);
}

#[test]
fn a_network_that_asks_too_much_is_slowed_down_and_others_are_not() {
    let mut rates = Rates::default();
    let busy: IpAddr = "203.0.113.7".parse().unwrap();
    let admitted = (0..1000).filter(|_| rates.admit(busy, 5, 100, 50) == Admit::Answer).count();
    assert_eq!(admitted, 100);
    let half = (0..100).filter(|_| rates.admit(busy, 5, 100, 50) == Admit::Truncate).count();
    assert_eq!(half, 50, "every second one may come by TCP");
    assert_eq!(rates.admit("203.0.112.7".parse().unwrap(), 5, 100, 50), Admit::Answer);
    assert_eq!(rates.admit(busy, 7, 100, 50), Admit::Answer, "another kind of answer");
    assert_eq!(rates.admit(busy, 5, 100, 60), Admit::Answer, "later");
}

#[test]
fn nobody_gets_much_more_than_was_sent() {
    let mut worst: f64 = 0.0;
    for name in ["cdn.example", "shop.cdn.example", "txt.cdn.example", "no.cdn.example"] {
        for rtype in [rtype::A, rtype::NS, rtype::TXT, rtype::DNSKEY, rtype::HTTPS, rtype::ANY, rtype::SOA] {
            let query = query(name, rtype, &Ask { dnssec: true, udp_bytes: 4096, ..Ask::default() });
            let answer = ask(&query, Transport::Udp).unwrap();
            worst = worst.max(answer.len() as f64 / query.len() as f64);
        }
    }
    assert!(worst < 11.0, "{worst}");
}

proptest! {
    #[test]
    fn the_subnet_is_echoed_and_its_scope_is_never_over_the_source(address: u32, bits in 0u8..=32, v6: bool, high: u64, bits6 in 0u8..=64) {
        let keep = |bits: u8, of: u32| u32::MAX.checked_shl(of - u32::from(bits)).unwrap_or(0);
        let (text, bits) = if v6 {
            let masked = u128::from(high) << 64 & u128::MAX.checked_shl(128 - u32::from(bits6)).unwrap_or(0);
            (std::net::Ipv6Addr::from(masked).to_string(), bits6)
        } else {
            (std::net::Ipv4Addr::from(address & keep(bits, 32)).to_string(), bits)
        };
        for (name, rtype) in [("shop.cdn.example", rtype::A), ("txt.cdn.example", rtype::TXT), ("no.cdn.example", rtype::A)] {
            let out = ask(&query(name, rtype, &Ask { subnet: Some((&text, bits)), ..Ask::default() }), Transport::Udp).unwrap();
            let (echoed, source, scope) = subnet(&out).unwrap();
            prop_assert_eq!((echoed, source), (text.clone(), bits));
            prop_assert!(scope <= bits);
            prop_assert!(name == "shop.cdn.example" || scope == 0);
        }
    }

    #[test]
    fn no_packet_makes_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        fuzzing::respond(&bytes);
    }

    #[test]
    fn no_damage_to_a_query_makes_a_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), whole: bool) {
        let how = Ask { dnssec: true, subnet: Some(("10.1.0.0", 24)), cookie: Some(b"12345678"), nsid: true, ..Ask::default() };
        let mut bytes = query("shop.cdn.example", rtype::A, &how);
        for (index, byte) in &edits {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        fuzzing::respond(&bytes);
    }
}

#[test]
fn what_is_no_query_gets_what_it_deserves() {
    let good = query("cdn.example", rtype::SOA, &Ask::default());
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        ask(&bytes, Transport::Udp).map(|out| u16::from(out[3] & 0xf))
    };
    assert_eq!(changed(2, 0x80), None, "an answer");
    assert_eq!(changed(2, 0x28), Some(rcode::NOTIMP), "an update");
    assert_eq!(changed(5, 2), Some(rcode::FORMERR), "two questions");
    assert_eq!(changed(7, 1), Some(rcode::FORMERR));
    assert_eq!(changed(12, 0xc0), Some(rcode::FORMERR), "a compressed name");
    assert_eq!(ask(&good[..11], Transport::Udp), None);
    let of_subnet = |address, bits| {
        let how = Ask { subnet: Some((address, bits)), ..Ask::default() };
        u16::from(ask(&query("shop.cdn.example", rtype::A, &how), Transport::Udp).unwrap()[3] & 0xf)
    };
    // Else the scope of IPv4's would be one of IPv6's first 24 bits, in which all mapped addresses lie.
    assert_eq!(of_subnet("::ffff:10.1.0.0", 120), rcode::FORMERR, "IPv4 in IPv6's family");
    assert_eq!([of_subnet("::fffe:0:0", 95), of_subnet("::", 120)], [rcode::NOERROR; 2]);
    assert_eq!(ask(&good[..20], Transport::Udp).map(|out| out.len()), Some(12));
    let version = good.len() - 5;
    assert_eq!(changed(version, 1), Some(0), "BADVERS has its upper bits in OPT");
    let chaos = good.len() - 12;
    assert_eq!(changed(chaos, 3), Some(rcode::REFUSED), "another class");
    assert_eq!(Rcode::NXDOMAIN.to_int(), 3);
}
