//! Traces: spans that have ended, in a bounded queue; one thread that sends them on in batches of OTLP. No worker ever waits for it:
//! what does not fit into the queue is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use stats::otlp::{self, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span};

use crate::registry::Registry;

/// Spans that may wait: some MiB, and ten seconds of a thousand sampled requests a second.
pub const SPANS_QUEUED_MAX: usize = 16_384;

/// Spans of one request to the collector.
const SPANS_TOGETHER_MAX: usize = 512;

/// How long spans are gathered for one.
const GATHER: Duration = Duration::from_secs(1);

/// The way to whoever collects traces. Ends with its last holder; what waits then is sent, if the collector takes it.
#[derive(Clone)]
pub struct Traces {
    queue: SyncSender<Span>,
    registry: Arc<Registry>,
}

impl Traces {
    /// Starts the thread. `to` is given one request (`ExportTraceServiceRequest`) at a time, and may wait; `node` is the name of this one.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(node: &str, to: Box<dyn Write + Send>, registry: &Arc<Registry>) -> io::Result<Traces> {
        let (queue, spans) = sync_channel(SPANS_QUEUED_MAX);
        let resource = Resource {
            attributes: vec![
                KeyValue::text("service.name", "perigee"),
                KeyValue::text("service.instance.id", node),
                KeyValue::text("service.version", registry.build.version),
            ],
        };
        let counted = Arc::clone(registry);
        thread::Builder::new().name("traces".into()).spawn(move || send(&spans, to, &resource, &counted))?;
        Ok(Traces { queue, registry: Arc::clone(registry) })
    }

    /// Hands a span over, or drops it. Does not wait.
    pub fn tell(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.registry.shared.spans_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Traces")
    }
}

fn send(spans: &Receiver<Span>, mut to: Box<dyn Write + Send>, resource: &Resource, registry: &Registry) {
    while let Some(batch) = gather(spans) {
        let count = batch.len() as u64;
        let scope = ScopeSpans { scope: Some(Scope::of_perigee(registry.build.version)), spans: batch };
        let resource = ResourceSpans { resource: Some(resource.clone()), scopes: vec![scope] };
        let request = otlp::Traces { resources: vec![resource] }.encode_to_vec();
        let shared = &registry.shared;
        match to.write_all(&request) {
            Ok(()) => _ = shared.spans_sent.fetch_add(count, Ordering::Relaxed),
            // Once, and then at each power of two.
            Err(error) => {
                shared.spans_refused.fetch_add(count, Ordering::Relaxed);
                if (shared.trace_failures.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
                    eprintln!("perigee: traces are not taken: {error}");
                }
            }
        }
    }
}

/// Waits for spans, and for those that come right behind. `None`: there will be none.
fn gather(spans: &Receiver<Span>) -> Option<Vec<Span>> {
    let mut batch = vec![spans.recv().ok()?];
    let until = Instant::now() + GATHER;
    while batch.len() < SPANS_TOGETHER_MAX {
        match spans.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(span) => batch.push(span),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::registry::BuildInfo;

    /// Takes requests when it is let, and shows them.
    struct Gate {
        open: Receiver<()>,
        shown: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(io::Error::other)?;
            self.shown.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_collector_that_stands_still_costs_spans_and_no_waiting() {
        let registry = Registry::new(BuildInfo { version: "0", commit: "" });
        let (opener, open) = channel();
        let (shown, requests) = channel();
        let traces = Traces::start("fra-1", Box::new(Gate { open, shown }), &registry).unwrap();
        // While nothing is taken: one batch is on its way, the queue is full, and each one more is dropped at once.
        let told = SPANS_QUEUED_MAX + SPANS_TOGETHER_MAX + 100;
        (0..told).for_each(|_| traces.tell(Span { name: "GET".into(), ..Span::default() }));
        let dropped = registry.shared.spans_dropped.load(Ordering::Relaxed) as usize;
        assert!((100..=100 + SPANS_TOGETHER_MAX).contains(&dropped), "{dropped}");
        drop(traces);
        (0..told).for_each(|_| _ = opener.send(()));
        let requests = requests.iter().map(|request| otlp::Traces::decode(&request[..]).unwrap());
        let sent: usize = requests.map(|request| request.resources[0].scopes[0].spans.len()).sum();
        assert_eq!(sent + dropped, told);
        assert_eq!(registry.shared.spans_sent.load(Ordering::Relaxed) as usize, sent);
    }
}
