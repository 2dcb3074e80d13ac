//! What a service exports to Prometheus.
//!
//! A [`Metric`] defines a number's name, unit and meaning, and how to read it;
//! each service has a table of them. A [`Source`] puts the values of its table on
//! a [`Page`] at each scrape. All sources of a process share one [`Metrics`], so that several
//! shards or actors in one process become several samples of one metric. The tables of
//! docs/metrics.md are written from the same entries (`cli/tests/it/metrics.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as Suffix};

mod process;

pub use process::{BUILD, DISK, PROCESS, Process};

/// How the response names its format: OpenMetrics text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a number counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Rows,
    /// 0 or 1.
    Flag,
    /// A number without a unit.
    Number,
    /// From 0 to 1.
    Probability,
    /// Seconds; the name ends with it.
    Seconds,
    /// Bytes; the name ends with it.
    Bytes,
    /// Millimetres; the name ends with it.
    Millimetres,
    /// Steps at the finest scale; the name ends with it.
    FinestSteps,
}

impl Unit {
    /// As documentation writes it.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Rows => "rows",
            Self::Flag => "0, 1",
            Self::Number => "–",
            Self::Probability => "0–1",
            Self::Seconds => "s",
            Self::Bytes => "B",
            Self::Millimetres => "mm",
            Self::FinestSteps => "finest steps",
        }
    }

    /// What Prometheus appends to the name.
    fn suffix(self) -> Option<Suffix> {
        match self {
            Self::Count | Self::Rows | Self::Flag | Self::Number | Self::Probability => None,
            Self::Seconds => Some(Suffix::Seconds),
            Self::Bytes => Some(Suffix::Bytes),
            Self::Millimetres => Some(Suffix::Other("millimetres".to_owned())),
            Self::FinestSteps => Some(Suffix::Other("finest_steps".to_owned())),
        }
    }
}

/// Whether a number may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// A number that is read from a `T`.
#[derive(Debug)]
pub struct Metric<T: 'static> {
    kind: Kind,
    name: &'static str,
    unit: Unit,
    help: &'static str,
    healthy: &'static str,
    read: fn(&T) -> Value,
}

/// A number that only rises while the process runs; `_total` is appended to its
/// name. `healthy`: what it is in a healthy system; may be empty.
pub const fn counter<T>(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    healthy: &'static str,
    read: fn(&T) -> Value,
) -> Metric<T> {
    Metric {
        kind: Kind::Counter,
        name,
        unit,
        help,
        healthy,
        read,
    }
}

/// A number that rises and falls.
pub const fn gauge<T>(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    healthy: &'static str,
    read: fn(&T) -> Value,
) -> Metric<T> {
    Metric {
        kind: Kind::Gauge,
        ..counter(name, unit, help, healthy, read)
    }
}

impl<T> Metric<T> {
    /// For documentation.
    #[must_use]
    pub fn describe(&self) -> Description {
        let suffix = self.unit.suffix().map(|s| format!("_{}", s.as_str()));
        let total = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
        };
        Description {
            name: format!("{}{}{total}", self.name, suffix.unwrap_or_default()),
            unit: self.unit.symbol(),
            help: self.help,
            healthy: self.healthy,
        }
    }
}

/// A metric in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// As Prometheus stores it.
    pub name: String,
    /// Symbol of its unit.
    pub unit: &'static str,
    pub help: &'static str,
    /// What it is in a healthy system; may be empty.
    pub healthy: &'static str,
}

/// The values of a metric at one moment, each with its label.
#[derive(Debug, Default)]
pub struct Value(Vec<(Option<Label>, f64)>);

/// Name and value of a label.
type Label = (&'static str, String);

pub fn by<L, V>(label: &'static str, values: impl IntoIterator<Item = (L, V)>) -> Value
where
    L: Into<String>,
    V: Into<Value>,
{
    let labelled = |(which, value): (L, V)| {
        let label = (label, which.into());
        let values = value.into().0.into_iter();
        values.map(move |(_, value)| (Some(label.clone()), value))
    };
    Value(values.into_iter().flat_map(labelled).collect())
}

macro_rules! value {
    ($($kind:ty: |$v:ident| $number:expr),* $(,)?) => {$(
        impl From<$kind> for Value {
            fn from($v: $kind) -> Self {
                Self(vec![(None, $number)])
            }
        }
    )*};
}

value! {
    f64: |value| value,
    u64: |count| float(count),
    u32: |count| f64::from(count),
    usize: |count| float(count as u64),
    bool: |holds| f64::from(u8::from(holds)),
    Duration: |time| time.as_secs_f64(),
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus keeps 64-bit floats: exact below 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// Absent where there is nothing to read.
impl<V: Into<Self>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or_else(Self::default, Into::into)
    }
}

/// Something with metrics.
pub trait Source: Send + Sync + 'static {
    /// Puts its values on the page. Must be quick: other requests wait meanwhile.
    fn export(&self, page: &mut Page);
}

impl<F: Fn(&mut Page) + Send + Sync + 'static> Source for F {
    fn export(&self, page: &mut Page) {
        self(page);
    }
}

type Labels = Vec<Label>;

#[derive(Debug)]
struct Family {
    kind: Kind,
    unit: Unit,
    help: &'static str,
    samples: Vec<(Labels, f64)>,
}

/// All samples of one moment.
#[derive(Debug, Default)]
pub struct Page {
    /// Labels of all samples that follow.
    common: Labels,
    families: BTreeMap<&'static str, Family>,
}

impl Page {
    /// Puts the values that these metrics read from `source` on the page.
    pub fn read<T>(&mut self, metrics: &[Metric<T>], source: &T) {
        for metric in metrics {
            for (label, value) in (metric.read)(source).0 {
                let labels = self.common.iter().cloned().chain(label).collect();
                let family = self.families.entry(metric.name).or_insert_with(|| Family {
                    kind: metric.kind,
                    unit: metric.unit,
                    help: metric.help,
                    samples: Vec::new(),
                });
                family.samples.push((labels, value));
            }
        }
    }

    /// All samples that `export` puts on the page get this label.
    pub fn labelled(&mut self, label: &'static str, value: &str, export: impl FnOnce(&mut Self)) {
        self.common.push((label, value.to_owned()));
        export(self);
        self.common.pop();
    }
}

/// The sources of one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics {
    sources: Arc<Mutex<Vec<Box<dyn Source>>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub fn add(&self, source: impl Source) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Box::new(source));
    }

    /// All values of this moment, as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut page = Page::default();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for source in sources.iter() {
            source.export(&mut page);
        }
        drop(sources);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, family) in &self.families {
            let (kind, suffix) = (family.kind, family.unit.suffix());
            let of = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, family.help, suffix.as_ref(), of)?;
            for (labels, value) in &family.samples {
                if labels.is_empty() {
                    // A family would write empty brackets.
                    write(&mut metric, kind, *value)?;
                } else {
                    write(&mut metric.encode_family(labels)?, kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(sample: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => sample.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge => sample.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows inserted, seconds of commits.
    type Shard = (u64, f64);

    const SHARD: &[Metric<Shard>] = &[
        counter(
            "landmarl_replay_rows_inserted",
            Unit::Rows,
            "Rows",
            "",
            |s| s.0.into(),
        ),
        counter(
            "landmarl_replay_journal_busy",
            Unit::Seconds,
            "Time",
            "",
            |s| s.1.into(),
        ),
    ];

    /// Joined, lost, loss.
    type Learner = (u64, u64, Option<f64>);

    const LEARNER: &[Metric<Learner>] = &[
        gauge("landmarl_learner_actors", Unit::Count, "Actors", "", |l| {
            by("state", [("joined", l.0), ("lost", l.1)])
        }),
        gauge(
            "landmarl_learner_loss",
            Unit::Number,
            "Loss",
            "falls",
            |l| l.2.into(),
        ),
    ];

    #[test]
    fn the_text_is_openmetrics_with_units_and_labels() {
        let metrics = Metrics::default();
        for shard in ["0", "1"] {
            metrics.add(move |page: &mut Page| {
                page.labelled("shard", shard, |page| page.read(SHARD, &(5, 0.25)));
            });
        }
        metrics.add(|page: &mut Page| page.read(LEARNER, &(2, 1, Some(0.5))));
        let expected = "\
# HELP landmarl_learner_actors Actors
# TYPE landmarl_learner_actors gauge
landmarl_learner_actors{state=\"joined\"} 2.0
landmarl_learner_actors{state=\"lost\"} 1.0
# HELP landmarl_learner_loss Loss
# TYPE landmarl_learner_loss gauge
landmarl_learner_loss 0.5
# HELP landmarl_replay_journal_busy_seconds Time
# TYPE landmarl_replay_journal_busy_seconds counter
# UNIT landmarl_replay_journal_busy_seconds seconds
landmarl_replay_journal_busy_seconds_total{shard=\"0\"} 0.25
landmarl_replay_journal_busy_seconds_total{shard=\"1\"} 0.25
# HELP landmarl_replay_rows_inserted Rows
# TYPE landmarl_replay_rows_inserted counter
landmarl_replay_rows_inserted_total{shard=\"0\"} 5.0
landmarl_replay_rows_inserted_total{shard=\"1\"} 5.0
# EOF
";
        assert_eq!(metrics.text().unwrap(), expected);
    }

    #[test]
    fn a_value_that_is_absent_has_no_sample() {
        let metrics = Metrics::default();
        metrics.add(|page: &mut Page| page.read(LEARNER, &(2, 1, None)));
        assert!(!metrics.text().unwrap().contains("loss"));
    }

    #[test]
    fn descriptions_have_the_names_that_prometheus_stores() {
        let described = SHARD.iter().map(Metric::describe);
        let names: Vec<_> = described.map(|d| (d.name, d.unit)).collect();
        assert_eq!(
            names,
            [
                ("landmarl_replay_rows_inserted_total".to_owned(), "rows"),
                ("landmarl_replay_journal_busy_seconds_total".to_owned(), "s"),
            ]
        );
        let loss = LEARNER[1].describe();
        assert_eq!(
            (loss.name.as_str(), loss.healthy),
            ("landmarl_learner_loss", "falls")
        );
    }
}
