//! The built binary, and an origin whose line is cut. Skipped, with a word, where no network namespaces can be made.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use world::authority::wait_for;
use world::cluster::Ground;
use world::edges::{CountingOrigin, Got, ask, get, reply};
use world::ground::Fields;
use world::scratch::Scratch;

/// Where the origin is: not where visitors are, so that its line can be cut alone.
const ORIGIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 66, 0, 250));

/// One edge, and one origin beside visitors, who tells which requests have come.
struct Lines {
    fields: Fields,
    origin: CountingOrigin,
    address: SocketAddr,
    edge: Child,
    _scratch: Scratch,
}

impl Lines {
    /// `None` where nothing can be cut.
    fn lay(name: &str) -> Option<Lines> {
        let fields = Fields::lay();
        if !fields.can_cut() {
            return None;
        }
        let added = Command::new("ip").args(["addr", "add", &format!("{ORIGIN}/24"), "dev", "hub"]).status();
        assert!(added.unwrap().success());
        let origin = CountingOrigin::start_at(ORIGIN, |asked, stream| {
            reply(stream, "Cache-Control: no-store\r\n", asked.target.as_bytes())
        });
        let (scratch, address) = (Scratch::new(name), fields.service("edge"));
        let (file, log) = (scratch.0.join("edge.toml"), scratch.0.join("edge.log"));
        let text = format!(
            "[edge]\nlisten = \"{address}\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n[[site]]\nname = \"site\"\n\
             domains = [\"site.example\"]\norigin = \"{}\"\n\
             origin_options = {{ timeouts = {{ connect = \"400ms\", first_byte = \"1h\" }} }}\n",
            origin.url()
        );
        fs::write(&file, text).unwrap();
        let state = scratch.0.join("state");
        let at = [file.to_str().unwrap(), "--state", state.to_str().unwrap()];
        let command = [&[env!("CARGO_BIN_EXE_perigee"), "serve", "--config"], &at[..]].concat();
        let command = fields.command("edge", command.into_iter().map(str::to_owned).collect());
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = Lines { fields, origin, address, edge: child, _scratch: scratch };
        wait_for("the edge", || {
            let said = fs::read_to_string(&log).unwrap();
            assert!(lines.edge.try_wait().unwrap().is_none(), "it ended: {said}");
            said.contains("Ctrl-C")
        });
        Some(lines)
    }

    fn get(&self, target: &str) -> Got {
        get(self.address, target, "")
    }

    fn cut(&self, is_cut: bool) {
        self.fields.cut_between("edge", ORIGIN, is_cut).unwrap();
    }

    /// How often the edge's kernel has sent something again that the origin's does not acknowledge, as /proc/net/tcp tells; `None` when
    /// there is no such thing.
    fn retransmissions(&self) -> Option<u32> {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.edge.id())).unwrap();
        let IpAddr::V4(address) = ORIGIN else { unreachable!() };
        let number = u32::from_ne_bytes(address.octets());
        let origin = format!("{number:08X}:{:04X}", self.origin.address().port());
        let times = table.lines().filter_map(|line| {
            let columns: Vec<_> = line.split_ascii_whitespace().collect();
            let is_on_the_way = columns[2] == origin && !columns[4].starts_with("00000000:");
            is_on_the_way.then(|| u32::from_str_radix(columns[6], 16).unwrap())
        });
        times.max()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.edge.kill();
        let _ = self.edge.wait();
    }
}

#[test]
fn an_origin_whose_machine_is_gone_is_noticed_on_a_kept_connection_and_never_gets_what_was_given_up_on() {
    let Some(lines) = Lines::lay("gone") else { return };
    assert_eq!(lines.get("/before").status, 200);
    lines.cut(true);
    let got = lines.get("/gone");
    assert_eq!(got.status, 502, "{}", got.head);
    assert!(got.head.contains("detail=origin-connect"), "{}", got.head);
    wait_for("the kernel to forget what was given up on", || lines.retransmissions().is_none());
    lines.cut(false);
    wait_for("the origin", || lines.get("/after").status == 200);
    assert_eq!(lines.origin.asked("/gone").len(), 0, "it was asked when nobody waited any more");
}

#[test]
fn what_cannot_be_sent_again_gets_through_when_the_line_is_mended() {
    let Some(lines) = Lines::lay("mended") else { return };
    assert_eq!(lines.get("/before").status, 200);
    lines.cut(true);
    std::thread::scope(|scope| {
        let posted = scope.spawn(|| ask(lines.address, "POST", "/order", "Content-Length: 0\r\n"));
        // 0.2, 0.4 and 0.8 s apart (RFC 6298): longer than `connect`.
        wait_for("the third time that it is sent again", || lines.retransmissions() >= Some(3));
        lines.cut(false);
        assert_eq!(posted.join().unwrap().unwrap().status, 200);
    });
    assert_eq!(lines.origin.asked("/order").len(), 1);
}
