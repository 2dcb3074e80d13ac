//! A small run: two scans, two landmarks, a tiny network.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actor::session::counters::Counters;
use actor::{ActorError, ActorSetup, ActorSummary};
use common::config::Config;
use common::imaging::dataset::Dataset;
use common::imaging::geometry::{Affine, AxisMap, Geometry};
use common::imaging::manifest::volume_hash;
use common::imaging::scan::Scan;
use common::imaging::volume::Volume;
use model::{Network, NetworkSpec};
use proto::transport::security::Security;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub fn scan(fill: usize) -> Arc<Scan> {
    let dims = [30, 24, 20];
    let count = dims.iter().product::<usize>();
    let voxels: Vec<u8> = (0..count)
        .map(|i| u8::try_from(i * fill % 251).unwrap())
        .collect();
    let volume = Volume::from_u8(dims, voxels).unwrap();
    let rows = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    Arc::new(Scan {
        name: format!("pattern {fill}"),
        hash: volume_hash(&volume),
        volume,
        geometry: Geometry {
            dims,
            spacing_mm: [1.0; 3],
            affine: Affine { rows },
            axis_map: AxisMap::identity(dims),
        },
        landmarks: vec![Some([15.0, 12.0, 10.0]), Some([4.0, 5.0, 6.0])],
    })
}

pub fn config() -> Config {
    let mut config = Config::defaults().unwrap();
    config.rules.window_size = 8;
    config.rules.scales = vec![(2, 3).into(), (1, 1).into()];
    config.rules.max_steps = 20;
    config.data.landmarks = vec!["A".into(), "B".into()];
    config.actor.slots = 4;
    config.actor.start_near = 0.0;
    config.actor.batch_rows = 16;
    config.actor.batch_wait_ms = 20;
    config.actor.backlog = 3;
    config
}

/// Weights of a network for [`config`]; other seeds, other numbers.
pub fn weights(seed: u64, history: usize) -> Vec<u8> {
    let spec = NetworkSpec {
        window: 8,
        ..NetworkSpec::small(2, history, Some(2))
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let network = Network::new(&spec, &mut rng, tch::Device::Cpu).unwrap();
    model::files::weights::to_bytes(&network, &Default::default()).unwrap()
}

/// An actor that runs until it is stopped.
pub struct Running {
    pub counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<ActorSummary, ActorError>>,
}

impl Running {
    pub fn start(learner: &str, config: Config) -> Self {
        let counters = Arc::new(Counters::default());
        let setup = ActorSetup {
            config: Arc::new(config),
            dataset: Arc::new(Dataset {
                scans: vec![scan(7), scan(11)],
                ..Dataset::default()
            }),
            learner: learner.to_owned(),
            run_id: None,
            security: Security::none(),
            counters: Arc::clone(&counters),
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        Self {
            counters,
            stop,
            task: tokio::spawn(actor::run(setup, shutdown)),
        }
    }

    pub async fn stop(self) -> Result<ActorSummary, ActorError> {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }

    pub async fn ended(self) -> Result<ActorSummary, ActorError> {
        let _keep = self.stop;
        within(self.task).await.unwrap()
    }
}

/// Every row was acknowledged, dropped, or left unsent.
pub fn assert_rows_add_up(summary: &ActorSummary) {
    let counts = summary.counts;
    let known = counts.rows_acked + counts.rows_dropped + summary.rows_unsent;
    assert_eq!(counts.rows_made, known, "{summary:?}");
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("an end within 30 s")
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("30 s and not yet: {what}");
}
