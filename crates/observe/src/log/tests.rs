use std::sync::mpsc::Sender;

use super::*;
use crate::registry::BuildInfo;

fn registry() -> Arc<Registry> {
    Registry::new(BuildInfo { version: "0.0.0", commit: "" })
}

/// A sink under the test's control: fails while told to, and may block until the gate opens.
struct Script {
    written: Arc<Mutex<Vec<u8>>>,
    /// Bytes that fit before writes fail.
    room: Arc<Mutex<usize>>,
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.room.lock();
        let count = bytes.len().min(*room);
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        *room -= count;
        self.written.lock().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_torn_line_is_ended_before_the_next_and_lost_lines_are_counted() {
    let registry = registry();
    let (written, room) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(9)));
    let mut drain = Drain {
        writer: Box::new(Script { written: Arc::clone(&written), room: Arc::clone(&room) }),
        torn: false,
        registry: Arc::clone(&registry),
        reopened: Arc::default(),
        spare: Arc::default(),
    };
    drain.write(b"line 1\nline 2\nline 3\n".to_vec());
    drain.write(b"line 4\n".to_vec());
    *room.lock() = 1000;
    drain.write(b"line 5\n".to_vec());
    assert_eq!(String::from_utf8_lossy(&written.lock()), "line 1\nli\nline 5\n");
    assert_eq!(registry.shared.log_lines_lost.load(Ordering::Relaxed), 3);
    assert_eq!(registry.shared.log_write_errors.load(Ordering::Relaxed), 2);
}

/// Blocks each write until the gate's other end is dropped or sends.
struct Gated(Receiver<()>, Arc<Mutex<Vec<u8>>>);

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log whose sink blocks until the sender is dropped.
pub(crate) fn gated_log(registry: &Arc<Registry>) -> (AccessLog, Sender<()>, Arc<Mutex<Vec<u8>>>) {
    let (gate, closed) = mpsc::channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let sink = Box::new(Gated(closed, Arc::clone(&written)));
    (AccessLog::start_on(sink, None, Format::Json, registry).unwrap(), gate, written)
}

/// More buffers than a blocked log takes: those in the queue and the one in the writer's hands.
pub(crate) const BUFFERS_TO_OVERFLOW: usize = QUEUE_BUFFERS_MAX + 2;

#[test]
fn a_full_queue_gives_lines_back_at_once() {
    let (log, gate, written) = gated_log(&registry());
    let link = log.link();
    let refused = (0..BUFFERS_TO_OVERFLOW).filter(|_| link.try_send(b"x\n".to_vec()).is_err()).count();
    assert!(refused >= 1);
    assert!(!log.stop(Duration::from_millis(20)), "a blocked sink is not waited for without bound");
    drop(gate);
    assert!(log.stop(Duration::from_secs(10)));
    assert_eq!(written.lock().len(), 2 * (BUFFERS_TO_OVERFLOW - refused));
}

#[test]
fn rotation_moves_new_lines_to_a_new_file() {
    let directory = std::env::temp_dir().join(format!("perigee-log-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (path, old) = (directory.join("access.log"), directory.join("access.log.1"));
    let registry = registry();
    let options = LogOptions { sink: Sink::File(path.clone()), format: Format::Json };
    let log = AccessLog::start(options, &registry).unwrap();
    log.link().try_send(b"one\n".to_vec()).unwrap();
    while std::fs::read(&path).unwrap().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    std::fs::rename(&path, &old).unwrap();
    log.reopen().unwrap();
    log.link().try_send(b"two\n".to_vec()).unwrap();
    assert!(log.stop(Duration::from_secs(10)));
    assert_eq!(std::fs::read(&old).unwrap(), b"one\n");
    assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    assert_eq!(registry.shared.log_reopens.load(Ordering::Relaxed), 1);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_is_said_at_start() {
    let options = LogOptions { sink: Sink::File("/nonexistent/access.log".into()), format: Format::Combined };
    assert_eq!(AccessLog::start(options, &registry()).unwrap_err().kind(), io::ErrorKind::NotFound);
}
