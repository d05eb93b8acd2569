//! A network of its own for the processes of a cluster, with an address for each: so that one can be cut off, or its line made narrow.
//!
//! Where root may make network namespaces, each process has one, joined to the others by a bridge in the hub, where visitors, origins and
//! operators are. Elsewhere each process has a loopback address of its own, and nothing is cut off ([`Fields::can_cut`]).
//!
//! What is started here is in process groups of its own, so that Ctrl-C reaches this process alone, which ends it in order. It ends with
//! this process all the same, however that ends: namespaces are held by processes that read from it, and the others are killed with the
//! thread that has started them. An edge that has been upgraded is not.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cluster::Ground;

/// The network of the bridge; the hub is 1 in it.
const NETWORK: [u8; 3] = [10, 66, 0];
/// The port for visitors of each edge.
const SERVICE_PORT: u16 = 8080;
/// A hardware address that nobody has: what is sent there is lost without a word.
const NOBODY: &str = "02:00:5e:00:53:ff";

/// Where processes are, each by its name.
pub struct Fields {
    hub: Option<Holder>,
    /// Each process with the last part of its address.
    places: Mutex<HashMap<String, Place>>,
    service_port: u16,
    next_port: AtomicU16,
}

struct Place {
    number: u8,
    holder: Option<Holder>,
}

/// A process that holds namespaces: it reads from this one, and ends when that does.
struct Holder {
    child: Child,
    _input: ChildStdin,
}

impl Holder {
    fn start(mounts: bool) -> io::Result<Holder> {
        let mut command = Command::new("unshare");
        command.arg("--net");
        if mounts {
            command.arg("--mount");
        }
        command.args(["sh", "-c", "ip link set lo up && echo ready && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.process_group(0).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line)?;
        }
        match input {
            Some(input) if line == "ready\n" => Ok(Holder { child, _input: input }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other("namespaces cannot be made here"))
            }
        }
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.child.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fields {
    /// Moves the calling thread, with all threads and processes that it starts from now on, into a network of its own, if that can be done.
    pub fn lay() -> Fields {
        let hub = Fields::lay_hub();
        if let Err(error) = &hub {
            println!("no network namespaces, so nothing is cut off, narrowed or filled: {error}");
        }
        let mut fields = Fields {
            hub: hub.ok(),
            places: Mutex::default(),
            service_port: SERVICE_PORT,
            next_port: AtomicU16::new(SERVICE_PORT + 1),
        };
        if fields.hub.is_none() {
            let drawn = TcpListener::bind((own_loopback(1), 0)).and_then(|socket| socket.local_addr());
            fields.service_port = drawn.expect("a free port").port();
        }
        fields
    }

    fn lay_hub() -> io::Result<Holder> {
        let holder = Holder::start(true)?;
        let link = File::open(holder.file("net"))?;
        let before = File::open("/proc/thread-self/ns/net")?;
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
        let [a, b, c] = NETWORK;
        let laid = shell(&format!(
            "ip link add hub type bridge && ip addr add {a}.{b}.{c}.1/24 dev hub && ip link set hub up"
        ));
        if let Err(error) = laid {
            move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::Network))?;
            return Err(error);
        }
        Ok(holder)
    }

    /// Whether a process can be cut off, its line made narrow, and its disk be filled.
    pub fn can_cut(&self) -> bool {
        self.hub.is_some()
    }

    /// Where visitors, origins and operators are.
    pub fn hub_address(&self) -> IpAddr {
        let [a, b, c] = NETWORK;
        match self.can_cut() {
            true => Ipv4Addr::new(a, b, c, 1).into(),
            false => own_loopback(1).into(),
        }
    }

    /// The address of the process of this name.
    pub fn address(&self, name: &str) -> IpAddr {
        let mut places = self.places.lock();
        let [a, b, c] = NETWORK;
        let number = match places.get(name) {
            Some(place) => place.number,
            None => {
                let number = places.len() as u8 + 2;
                let holder = self.can_cut().then(|| join(number).expect("one more network namespace"));
                places.insert(name.to_owned(), Place { number, holder });
                number
            }
        };
        match self.can_cut() {
            true => Ipv4Addr::new(a, b, c, number).into(),
            false => own_loopback(number).into(),
        }
    }

    // --- What is done to the ways between them ---

    /// Whatever is sent to or from it is lost from now on, or is not any more. Its own line stays up, as when a switch further on fails:
    /// its kernel keeps nothing back until the line is there again.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut(&self, name: &str, is_cut: bool) -> io::Result<()> {
        let number = self.number(name)?;
        shell(&format!(
            "ip link set w{number} {}",
            if is_cut { "nomaster arp off" } else { "master hub arp on" }
        ))
    }

    /// Whatever `from` sends to `to` is lost from now on, or is not any more.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn cut_between(&self, from: &str, to: IpAddr, is_cut: bool) -> io::Result<()> {
        self.within(
            from,
            &match is_cut {
                true => format!("ip neigh replace {to} lladdr {NOBODY} nud permanent dev eth0"),
                false => format!("ip neigh del {to} dev eth0"),
            },
        )
    }

    /// From now on it sends this many kbit/s at the most, or as many as it likes.
    ///
    /// # Errors
    /// What `tc` says, which knows no such thing on some kernels.
    pub fn narrow(&self, name: &str, kbits_per_second: Option<u32>) -> io::Result<()> {
        self.within(
            name,
            &match kbits_per_second {
                Some(rate) => {
                    format!("tc qdisc replace dev eth0 root tbf rate {rate}kbit burst 16kb latency 400ms")
                }
                None => "tc qdisc del dev eth0 root".to_owned(),
            },
        )
    }

    /// A file system of this size at this directory, as the processes see it. Where it is to be found from outside.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(&self, directory: &Path, mebibytes: u32) -> io::Result<PathBuf> {
        let hub = self.hub.as_ref().ok_or_else(|| io::Error::other("there are no namespaces"))?;
        let (mounts, at) = (hub.file("mnt"), directory.display());
        shell(&format!("nsenter --mount={mounts} mount -t tmpfs -o size={mebibytes}m none {at}"))?;
        let root = PathBuf::from(format!("/proc/{}/root", hub.child.id()));
        Ok(root.join(directory.strip_prefix("/").unwrap_or(directory)))
    }

    fn number(&self, name: &str) -> io::Result<u8> {
        let places = self.places.lock();
        let place = places.get(name).filter(|place| place.holder.is_some());
        place.map(|place| place.number).ok_or_else(|| io::Error::other(format!("{name} has no namespace")))
    }

    fn within(&self, name: &str, command: &str) -> io::Result<()> {
        let file = {
            let places = self.places.lock();
            let holder = places.get(name).and_then(|place| place.holder.as_ref());
            holder.map(|holder| holder.file("net"))
        };
        let file = file.ok_or_else(|| io::Error::other(format!("{name} has no namespace")))?;
        shell(&format!("nsenter --net={file} {command}"))
    }
}

impl Ground for Fields {
    fn free(&self, name: &str) -> SocketAddr {
        let address = self.address(name);
        match self.can_cut() {
            true => SocketAddr::new(address, self.next_port.fetch_add(1, Ordering::Relaxed)),
            false => {
                TcpListener::bind((address, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
            }
        }
    }

    fn service(&self, name: &str) -> SocketAddr {
        SocketAddr::new(self.address(name), self.service_port)
    }

    fn admin(&self, name: &str) -> SocketAddr {
        let free = self.free(name);
        if self.can_cut() { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free.port()) } else { free }
    }

    fn command(&self, name: &str, command: Vec<String>) -> Vec<String> {
        self.address(name);
        let places = self.places.lock();
        let holder = places.get(name).and_then(|place| place.holder.as_ref());
        let mut prefixed = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        if let Some((hub, holder)) = self.hub.as_ref().zip(holder) {
            let (mounts, link) = (hub.file("mnt"), holder.file("net"));
            prefixed.extend(["nsenter".to_owned(), format!("--mount={mounts}"), format!("--net={link}")]);
        }
        prefixed.extend(command);
        prefixed
    }

    fn is_apart(&self) -> bool {
        true
    }
}

/// A namespace that is joined to the bridge under this number.
fn join(number: u8) -> io::Result<Holder> {
    let holder = Holder::start(false)?;
    let (pid, [a, b, c]) = (holder.child.id(), NETWORK);
    shell(&format!(
        "ip link add w{number} type veth peer name eth0 netns {pid} && ip link set w{number} master hub up && \
         nsenter --net={} sh -c 'ip addr add {a}.{b}.{c}.{number}/24 dev eth0 && ip link set eth0 up'",
        holder.file("net")
    ))?;
    Ok(holder)
}

fn shell(line: &str) -> io::Result<()> {
    let output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).process_group(0).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

/// A loopback address of this process's own, where no other test draws a port.
fn own_loopback(number: u8) -> Ipv4Addr {
    let [.., a, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + (a ^ b) % 254, c, number)
}
