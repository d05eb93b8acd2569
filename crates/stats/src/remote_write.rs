//! What Prometheus remote-write 1.0 takes: `prometheus.WriteRequest`, as a form on the wire. Who sends it compresses it by Snappy.

use prost::Message;

/// `WriteRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// Each once in a request.
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<TimeSeries>,
}

/// `TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// In the order of their names; `__name__` is the metric's.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// The older ones first.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// `Label`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Label {
    /// `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Never empty: an empty one is one that is not there.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `Sample`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// The number.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// In ms since 1970.
    #[prost(int64, tag = "2")]
    pub at_ms: i64,
}
