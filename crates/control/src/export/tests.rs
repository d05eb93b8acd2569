//! The forms and the queue; that a real Prometheus understands them is shown in `perigee`'s tests.

use prost::Message;
use stats::otlp::{Data, Metrics};
use stats::remote_write::WriteRequest;

use super::*;

fn row(requests: u64, is_new: bool) -> Row {
    let mut first_byte = stats::Histogram::default();
    for (us, count) in [(200, 3), (256, 1), (257, 2), (60_000_000, 1)] {
        first_byte.add(stats::histogram::bucket_of(us), count);
    }
    let sums = Sums { requests, hits: 7, bytes: 1 << 50, first_byte, ..Sums::default() };
    Row { of: vec![("site", "shop".to_owned()), ("pop", String::new())], sums, is_new }
}

fn telling(labels: &BTreeMap<String, String>) -> Telling<'_> {
    Telling { control: "c1", labels, started_ms: 1_000, before_ms: 2_000, at_ms: 3_000 }
}

#[test]
fn series_of_remote_write_are_ordered_and_begin_at_zero() {
    let labels =
        BTreeMap::from([("Zone".to_owned(), "eu".to_owned()), ("cluster".to_owned(), "a".to_owned())]);
    let bytes = remote_write::request(&telling(&labels), &[row(9, true), row(4, false)]);
    let request = WriteRequest::decode(&bytes[..]).unwrap();
    let text = |series: &stats::remote_write::TimeSeries| {
        let labels: Vec<String> =
            series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        let samples: Vec<String> =
            series.samples.iter().map(|sample| format!("{}@{}", sample.value, sample.at_ms)).collect();
        format!("{{{}}} {}", labels.join(","), samples.join(" "))
    };
    let all: Vec<String> = request.series.iter().map(text).collect();
    assert_eq!(
        all[0],
        "{Zone=eu,__name__=perigee_cluster_requests_total,cluster=a,control=c1,site=shop} 0@2000 9@3000"
    );
    let half = all.len() / 2;
    assert_eq!(
        all[half],
        "{Zone=eu,__name__=perigee_cluster_requests_total,cluster=a,control=c1,site=shop} 4@3000"
    );
    let bucket = |le: &str| {
        let found = all[half..].iter().find(|text| text.contains(&format!(",le={le},")));
        found.unwrap().rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(
        ["0.000256", "0.000512", "8.388608", "+Inf"].map(bucket),
        ["4@3000", "6@3000", "6@3000", "7@3000"]
    );
}

#[test]
fn points_of_otlp_say_since_when_and_their_buckets_sum_up() {
    let labels = BTreeMap::from([("deployment.environment".to_owned(), "production".to_owned())]);
    let bytes = Metrics::decode(&otlp::request(&telling(&labels), &[row(9, true)])[..]).unwrap();
    let metrics = &bytes.resources[0].scopes[0].metrics;
    let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
    assert_eq!((metrics[0].name.as_str(), sum.is_monotonic), ("perigee.cluster.requests", true));
    let point = &sum.points[0];
    assert_eq!((point.start_ns, point.at_ns, point.value), (1_000_000_000, 3_000_000_000, Some(9)));
    let Some(Data::Histogram(times)) = &metrics[7].data else { panic!("{:?}", metrics[7]) };
    let point = &times.points[0];
    assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (7, 7));
    assert_eq!(point.bucket_counts.len(), point.bounds.len() + 1);
    assert_eq!((point.bucket_counts[0], point.bucket_counts[1], point.bucket_counts[16]), (4, 2, 1));
}

#[test]
fn a_full_queue_gives_up_the_oldest_and_says_how_many() {
    let queue = Queue::default();
    let part = QUEUE_BYTES_MAX / 4;
    let push = |mark: u8| queue.push(vec![mark; part]);
    assert_eq!([1, 2, 3, 4, 5, 6].map(push), [0, 0, 0, 0, 1, 1]);
    queue.close();
    let left: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|request| request[0]).collect();
    assert_eq!(left, [3, 4, 5, 6]);
}

#[test]
fn combinations_without_room_share_one_and_lose_nothing() {
    let totals = Totals::new(Dims(Dims::SITE));
    let coord = |site: u32| Coord([site, 0, 0, 0, 0, 0, 0]);
    let one = Sums { requests: 1, ..Sums::default() };
    let cells: HashMap<Coord, Sums> =
        (0..SERIES_MAX as u32 + 10).map(|site| (coord(site), one.clone())).collect();
    totals.add(&cells);
    totals.add(&cells);
    let all = totals.sums.lock();
    assert_eq!(all.len(), SERIES_MAX + 1);
    assert_eq!(all[&None].sums.requests, 20);
    assert_eq!(all.values().map(|total| total.sums.requests).sum::<u64>(), 2 * cells.len() as u64);
}

#[test]
fn what_is_told_apart_is_named_or_refused() {
    assert_eq!(By::of(["rule"]), By::of(["site", "rule"]));
    assert!(By::of(["site", "moon"]).unwrap_err().contains("\"moon\""));
}

#[test]
fn all_say_farewell_at_once() {
    let silent = || Exporting { place: String::new(), counts: Arc::default(), queue: Arc::default() };
    let exports = [silent(), silent(), silent()];
    let begun = Instant::now();
    end(&exports);
    assert!((FAREWELL..2 * FAREWELL).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // One that has sent its last is not waited for.
    exports.iter().for_each(|export| export.queue.drained());
    let begun = Instant::now();
    end(&exports);
    assert!(begun.elapsed() < FAREWELL);
}
