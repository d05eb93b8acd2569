//! The part of the OpenTelemetry protocol (OTLP 1.x) that is spoken here: requests that export sums, histograms and spans. A form on
//! the wire (protocol buffers), and nothing else; names and numbers are those of `opentelemetry/proto/…/v1/*.proto`.

use prost::{Message, Oneof};

/// `AggregationTemporality`: sums since the start, and not since the last time.
pub const CUMULATIVE: i32 = 2;

/// `SpanKind`: work within.
pub const KIND_INTERNAL: i32 = 1;
/// A request that was answered.
pub const KIND_SERVER: i32 = 2;
/// A request that was made.
pub const KIND_CLIENT: i32 = 3;

/// `StatusCode`: it failed.
pub const STATUS_ERROR: i32 = 2;

/// A value of an attribute.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Which.
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    pub value: Option<Value>,
}

/// The kinds of values that are used.
#[derive(Clone, PartialEq, Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// Yes or no.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A number.
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

impl KeyValue {
    /// A text.
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        KeyValue::of(key, Value::Text(value.into()))
    }

    /// A number.
    pub fn number(key: &str, value: u64) -> Self {
        KeyValue::of(key, Value::Number(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    /// Yes or no.
    pub fn bool(key: &str, value: bool) -> Self {
        KeyValue::of(key, Value::Bool(value))
    }

    fn of(key: &str, value: Value) -> Self {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

/// Who speaks.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What is known of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Which part of it.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

impl Scope {
    /// This program, of a version.
    pub fn of_perigee(version: &str) -> Scope {
        Scope { name: "perigee".to_owned(), version: version.to_owned() }
    }
}

// --- Metrics ---

/// `ExportMetricsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Metrics {
    /// By who speaks.
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceMetrics>,
}

/// `ResourceMetrics`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceMetrics {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By part.
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeMetrics>,
}

/// `ScopeMetrics`.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeMetrics {
    /// Which part.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// What it has measured.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// `Metric`.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it is, in a sentence.
    #[prost(string, tag = "2")]
    pub description: String,
    /// By UCUM.
    #[prost(string, tag = "3")]
    pub unit: String,
    /// Its points.
    #[prost(oneof = "Data", tags = "7, 9")]
    pub data: Option<Data>,
}

/// The kinds of metrics that are used.
#[derive(Clone, PartialEq, Oneof)]
pub enum Data {
    /// Sums.
    #[prost(message, tag = "7")]
    Sum(Sum),
    /// Histograms.
    #[prost(message, tag = "9")]
    Histogram(Histograms),
}

/// `Sum`.
#[derive(Clone, PartialEq, Message)]
pub struct Sum {
    /// One for each set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub points: Vec<NumberPoint>,
    /// Since when.
    #[prost(int32, tag = "2")]
    pub temporality: i32,
    /// Whether it only grows.
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// `NumberDataPoint`.
#[derive(Clone, PartialEq, Message)]
pub struct NumberPoint {
    /// Since when, in ns since 1970.
    #[prost(fixed64, tag = "2")]
    pub start_ns: u64,
    /// Until when.
    #[prost(fixed64, tag = "3")]
    pub at_ns: u64,
    /// The number.
    #[prost(sfixed64, optional, tag = "6")]
    pub value: Option<i64>,
    /// Of what.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
}

/// `Histogram`.
#[derive(Clone, PartialEq, Message)]
pub struct Histograms {
    /// One for each set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub points: Vec<HistogramPoint>,
    /// Since when.
    #[prost(int32, tag = "2")]
    pub temporality: i32,
}

/// `HistogramDataPoint`.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramPoint {
    /// Since when, in ns since 1970.
    #[prost(fixed64, tag = "2")]
    pub start_ns: u64,
    /// Until when.
    #[prost(fixed64, tag = "3")]
    pub at_ns: u64,
    /// Values in all buckets.
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    /// Values in each, one more than there are bounds.
    #[prost(fixed64, repeated, tag = "6")]
    pub bucket_counts: Vec<u64>,
    /// Inclusive above.
    #[prost(double, repeated, tag = "7")]
    pub bounds: Vec<f64>,
    /// Of what.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
}

// --- Traces ---

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Traces {
    /// By who speaks.
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceSpans>,
}

/// `ResourceSpans`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By part.
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeSpans>,
}

/// `ScopeSpans`.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// Which part.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// What it has done.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// `Span`.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What was done: of few different ones.
    #[prost(string, tag = "5")]
    pub name: String,
    /// `SpanKind`.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// In ns since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_ns: u64,
    /// In ns since 1970.
    #[prost(fixed64, tag = "8")]
    pub end_ns: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// How it ended.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
}

/// `Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
    /// `StatusCode`.
    #[prost(int32, tag = "3")]
    pub code: i32,
}
