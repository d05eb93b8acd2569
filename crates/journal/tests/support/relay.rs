//! A network that can be told to fail, between an engine and a member.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a port of loopback. Ends with the test's runtime.
pub(crate) struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Answers to requests whose head has this path: so many are lost.
    lost: AtomicUsize,
    path: Mutex<String>,
    is_refusing: AtomicBool,
    is_holding: AtomicBool,
    /// Connections begun before this number changed say nothing any more.
    silenced: watch::Sender<usize>,
}

impl Relay {
    pub(crate) async fn start(to: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !accepting.is_refusing.load(Ordering::Relaxed) {
                    tokio::spawn(pass(client, to, Arc::clone(&accepting)));
                }
            }
        });
        Relay { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Passes the next requests of a path on, and ends their connections when an answer comes.
    pub(crate) fn lose_answers(&self, path: &str, count: usize) {
        path.clone_into(&mut self.shared.path.lock().unwrap());
        self.shared.lost.store(count, Ordering::Relaxed);
    }

    /// Ends each connection at once.
    pub(crate) fn refuse(&self, is_refusing: bool) {
        self.shared.is_refusing.store(is_refusing, Ordering::Relaxed);
        if is_refusing {
            self.silence();
        }
    }

    /// Takes connections and passes nothing on.
    pub(crate) fn hold(&self, is_holding: bool) {
        self.shared.is_holding.store(is_holding, Ordering::Relaxed);
    }

    /// Lets the connections that there are fall silent, without an end.
    pub(crate) fn silence(&self) {
        self.shared.silenced.send_modify(|count| *count += 1);
    }
}

async fn pass(mut client: TcpStream, to: u16, shared: Arc<Shared>) {
    let mut silenced = shared.silenced.subscribe();
    if shared.is_holding.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            _ = silenced.changed() => {
                // The member sees an end; the engine sees nothing.
                drop(server);
                std::future::pending::<()>().await;
                return;
            }
            read = client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                let wanted = format!("POST /v3/{} ", shared.path.lock().unwrap());
                if asked[..read].starts_with(wanted.as_bytes()) {
                    let take = |lost: usize| lost.checked_sub(1);
                    is_lost = shared.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
                }
                if server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if is_lost || client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
