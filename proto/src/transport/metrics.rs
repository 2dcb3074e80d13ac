//! What a service tells Prometheus.
//!
//! A [`Source`] puts what it counts on a [`Page`] whenever somebody asks; all
//! sources of a process share one [`Metrics`], so that several shards or actors
//! in one process become several samples of one metric. docs/metrics.md says
//! what each means; `cli/tests/it/metrics.rs` holds it to that.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use common::run::machine;
use common::run::telemetry::Control;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub use prometheus_client::registry::Unit;

/// How the answer names its format: OpenMetrics text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Something that counts.
pub trait Source: Send + Sync + 'static {
    /// Puts its numbers on the page. Quick: nobody else is answered meanwhile.
    fn tell(&self, page: &mut Page);
}

impl<F: Fn(&mut Page) + Send + Sync + 'static> Source for F {
    fn tell(&self, page: &mut Page) {
        self(page);
    }
}

/// Name and value of each label of a sample.
type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Family {
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Labels, f64)>,
}

/// Everything that is told at one moment.
#[derive(Debug, Default)]
pub struct Page {
    /// Of all samples that follow.
    common: Labels,
    families: BTreeMap<&'static str, Family>,
}

impl Page {
    /// Something that only rises while the process lives; `_total` is added to its name.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.put(MetricType::Counter, name, None, help, &[], value);
    }

    /// Something that rises and falls.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.put(MetricType::Gauge, name, None, help, &[], value);
    }

    /// A counter in a unit, which is added to its name before `_total`.
    pub fn counter_in(&mut self, unit: Unit, name: &'static str, help: &'static str, value: f64) {
        self.put(MetricType::Counter, name, Some(unit), help, &[], value);
    }

    /// A gauge in a unit, which is added to its name.
    pub fn gauge_in(&mut self, unit: Unit, name: &'static str, help: &'static str, value: f64) {
        self.put(MetricType::Gauge, name, Some(unit), help, &[], value);
    }

    /// One sample of a counter for each of several things.
    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[(&str, f64)],
    ) {
        for (which, value) in values {
            let labels = [(label, (*which).to_owned())];
            self.put(MetricType::Counter, name, None, help, &labels, *value);
        }
    }

    /// One sample of a gauge for each of several things.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &[(&str, f64)],
    ) {
        for (which, value) in values {
            let labels = [(label, (*which).to_owned())];
            self.put(MetricType::Gauge, name, None, help, &labels, *value);
        }
    }

    /// Any sample; a metric keeps the help, unit and kind of its first one.
    pub fn put(
        &mut self,
        kind: MetricType,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        labels: &[(&'static str, String)],
        value: f64,
    ) {
        let family = self.families.entry(name).or_insert_with(|| Family {
            help,
            unit,
            kind,
            samples: Vec::new(),
        });
        let labels = self.common.iter().chain(labels).cloned().collect();
        family.samples.push((labels, value));
    }

    /// All samples that `tell` puts on the page get this label.
    pub fn labelled(&mut self, label: &'static str, value: &str, tell: impl FnOnce(&mut Self)) {
        self.common.push((label, value.to_owned()));
        tell(self);
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
    /// Tells what this source counts, too.
    pub fn add(&self, source: impl Source) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Box::new(source));
    }

    /// All numbers of this moment, as OpenMetrics text.
    ///
    /// # Errors
    /// What the encoder says of a number that it cannot write.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut page = Page::default();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for source in sources.iter() {
            source.tell(&mut page);
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
            let Family {
                help,
                unit,
                kind,
                samples,
            } = family;
            let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    // A family would write empty brackets.
                    write(&mut metric, *kind, *value)?;
                } else {
                    write(&mut metric.encode_family(labels)?, *kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn write(sample: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> Result<(), fmt::Error> {
    match kind {
        MetricType::Counter => sample.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        _ => sample.encode_gauge(&value),
    }
}

/// What every process tells: itself, its disk and its log.
pub struct Process {
    service: String,
    began: Instant,
    log: Option<Control>,
    /// What a folder is for, and where it is.
    folders: Vec<(&'static str, PathBuf)>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// A service that begins now.
    #[must_use]
    pub fn new(service: &str, log: Option<Control>) -> Self {
        Self {
            service: service.to_owned(),
            began: Instant::now(),
            log,
            folders: Vec::new(),
        }
    }

    /// It writes to `folder`, so the room there matters.
    #[must_use]
    pub fn writes_to(mut self, what_for: &'static str, folder: impl Into<PathBuf>) -> Self {
        self.folders.push((what_for, folder.into()));
        self
    }
}

impl Source for Process {
    fn tell(&self, page: &mut Page) {
        let labels = [
            ("service", self.service.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let help = "1, with the service and its version";
        page.put(
            MetricType::Gauge,
            "landmarl_build_info",
            None,
            help,
            &labels,
            1.0,
        );
        page.gauge_in(
            Unit::Seconds,
            "landmarl_process_uptime",
            "Time since the process began",
            self.began.elapsed().as_secs_f64(),
        );
        page.gauge_in(
            Unit::Bytes,
            "landmarl_process_resident",
            "Resident memory of the process",
            number(machine::resident_bytes()),
        );
        page.counter_in(
            Unit::Seconds,
            "landmarl_process_cpu",
            "Processor time of all threads",
            machine::processor_seconds(),
        );
        if let Some(log) = &self.log {
            page.counter(
                "landmarl_process_log_lines_dropped",
                "Log lines that the disk was too slow or too full for",
                number(log.dropped_lines()),
            );
            page.counter(
                "landmarl_process_log_lines_held_back",
                "Log lines held back because they repeated",
                number(log.held_back_lines()),
            );
        }
        for (what_for, folder) in &self.folders {
            // A folder that is away has no room to tell; that series ends.
            let Ok(room) = machine::disk_room(folder) else {
                continue;
            };
            page.labelled("folder", what_for, |page| {
                page.gauge_in(
                    Unit::Bytes,
                    "landmarl_process_disk_free",
                    "What may still be written to the disk of the folder",
                    number(room.free),
                );
                page.gauge_in(
                    Unit::Bytes,
                    "landmarl_process_disk_size",
                    "Size of the disk of the folder",
                    number(room.size),
                );
            });
        }
    }
}

/// A count as Prometheus takes it.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus keeps 64-bit floats: exact below 2^53"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_openmetrics_with_units_and_labels() {
        let metrics = Metrics::default();
        for shard in ["0", "1"] {
            metrics.add(move |page: &mut Page| {
                page.labelled("shard", shard, |page| {
                    page.counter("landmarl_replay_rows_inserted", "Rows taken", 5.0);
                    let busy = "landmarl_replay_journal_busy";
                    page.counter_in(Unit::Seconds, busy, "Time of commits", 0.25);
                });
            });
        }
        metrics.add(|page: &mut Page| {
            let states = [("joined", 2.0), ("lost", 1.0)];
            page.gauges("landmarl_learner_actors", "Actors", "state", &states);
            page.gauge("landmarl_learner_loss", "Loss", 0.5);
        });
        let expected = "\
# HELP landmarl_learner_actors Actors
# TYPE landmarl_learner_actors gauge
landmarl_learner_actors{state=\"joined\"} 2.0
landmarl_learner_actors{state=\"lost\"} 1.0
# HELP landmarl_learner_loss Loss
# TYPE landmarl_learner_loss gauge
landmarl_learner_loss 0.5
# HELP landmarl_replay_journal_busy_seconds Time of commits
# TYPE landmarl_replay_journal_busy_seconds counter
# UNIT landmarl_replay_journal_busy_seconds seconds
landmarl_replay_journal_busy_seconds_total{shard=\"0\"} 0.25
landmarl_replay_journal_busy_seconds_total{shard=\"1\"} 0.25
# HELP landmarl_replay_rows_inserted Rows taken
# TYPE landmarl_replay_rows_inserted counter
landmarl_replay_rows_inserted_total{shard=\"0\"} 5.0
landmarl_replay_rows_inserted_total{shard=\"1\"} 5.0
# EOF
";
        assert_eq!(metrics.text().unwrap(), expected);
    }

    #[test]
    fn a_process_tells_of_itself_and_of_folders_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let process = Process::new("actor", None)
            .writes_to("run", dir.path())
            .writes_to("gone", dir.path().join("gone"));
        metrics.add(process);
        let text = metrics.text().unwrap();
        for line in [
            "landmarl_build_info{service=\"actor\",version=\"",
            "landmarl_process_disk_free_bytes{folder=\"run\"} ",
            "landmarl_process_cpu_seconds_total ",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }
}
