//! A learner of tiny scans, with two shards.

use std::array::from_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::config::Config;
use common::environment::rules::RULES_VERSION;
use common::imaging::dataset::Dataset;
use common::imaging::geometry::{Affine, AxisMap, Geometry};
use common::imaging::manifest::volume_hash;
use common::imaging::scan::Scan;
use common::imaging::volume::Volume;
use common::run::run_folder::{ClaimedFolder, RunFolderError};
use learner::checkpoint::files::CheckpointFiles;
use learner::checkpoint::folder::Resume;
use learner::{LearnerError, LearnerSetup, LearnerSummary, PreparedRun, Progress};
use proto::messages::hello::Hello;
use proto::transport::channel::Channel;
use proto::transport::health::Health;
use proto::transport::security::Security;
use proto::wire::learner_client::LearnerClient;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::shard::Shard;

/// Two landmarks, windows of 8³, batches of 8, 50 rows first.
pub fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut c = Config::defaults().unwrap();
    c.rules.window_size = 8;
    c.data.landmarks = vec!["A".into(), "B".into()];
    (c.learner.batch, c.learner.threads, c.learner.device) = (8, 1, "cpu".into());
    (c.learner.updates, c.learner.publish_period) = (1000, 5);
    (c.replay.min_rows, c.replay.error_buffer) = (50, 100);
    c.replay.samples_per_insert = 4.0;
    (c.actor.batch_rows, c.checkpoint.period) = (16, 25);
    change(&mut c);
    Arc::new(c)
}

fn dataset() -> Arc<Dataset> {
    let dims = [20, 20, 20];
    let mut scans: Vec<Arc<Scan>> = (0..2_usize)
        .map(|k| {
            let bytes: Vec<u8> = (0..8000).map(|i| ((i * 31 + k * 17) % 251) as u8).collect();
            let volume = Volume::from_u8(dims, bytes).unwrap();
            let rows = from_fn(|i| from_fn(|j| f64::from(u8::from(i == j))));
            let geometry = Geometry {
                dims,
                spacing_mm: [1.0; 3],
                affine: Affine { rows },
                axis_map: AxisMap::identity(dims),
            };
            Arc::new(Scan {
                name: format!("s{k}"),
                hash: volume_hash(&volume),
                volume,
                geometry,
                landmarks: vec![Some([10.0; 3]), Some([5.0; 3])],
            })
        })
        .collect();
    scans.sort_by_key(|s| s.hash);
    let landmark_names = vec!["A".to_owned(), "B".to_owned()];
    Arc::new(Dataset {
        scans,
        landmark_names,
        ..Dataset::default()
    })
}

/// The run `it` in a folder of runs.
pub fn prepare(runs: &Path, config: &Config, resume: bool) -> Result<PreparedRun, RunFolderError> {
    let now = SystemTime::now();
    let claimed = ClaimedFolder::open_or_create(runs, "it", now)?;
    let resume = if resume { Resume::Newest } else { Resume::No };
    PreparedRun::new(claimed, config.clone(), dataset(), resume, now)
}

type Ended = Result<LearnerSummary, LearnerError>;

pub struct Run {
    pub config: Arc<Config>,
    pub hello: Hello,
    pub run_dir: PathBuf,
    pub shards: Vec<Shard>,
    pub progress: watch::Receiver<Progress>,
    pub dir: Arc<tempfile::TempDir>,
    addresses: Vec<String>,
    address: SocketAddr,
    stop: std::sync::Mutex<Option<oneshot::Sender<()>>>,
    task: Option<JoinHandle<Ended>>,
}

impl Run {
    pub async fn start(config: Arc<Config>, resume: bool) -> Self {
        let (mut shards, mut addresses) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let (shard, address) = Shard::start(number).await;
            shards.push(shard);
            addresses.push(address.to_string());
        }
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::with(config, resume, shards, addresses, dir).await
    }

    /// The same folder and shards, another process.
    pub async fn again(&self, config: Arc<Config>, resume: bool) -> Self {
        let (shards, addresses) = (self.shards.clone(), self.addresses.clone());
        Self::with(config, resume, shards, addresses, Arc::clone(&self.dir)).await
    }

    async fn with(
        config: Arc<Config>,
        resume: bool,
        shards: Vec<Shard>,
        addresses: Vec<String>,
        dir: Arc<tempfile::TempDir>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, progress) = watch::channel(Progress::default());
        let run = Arc::new(prepare(dir.path(), &config, resume).unwrap());
        let setup = LearnerSetup {
            run: Arc::clone(&run),
            checkpoints: Arc::new(CheckpointFiles::new(&run.folder.checkpoints())),
            shards: addresses.clone(),
            security: Security::none(),
            progress: sender,
            http: None,
            health: Health::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(learner::run(setup, listener, async {
            let _ = stopped.await;
        }));
        let stop = std::sync::Mutex::new(Some(stop));
        Self {
            config,
            hello: run.hello.clone(),
            run_dir: run.folder.path().to_owned(),
            shards,
            progress,
            dir,
            addresses,
            address,
            stop,
            task: Some(task),
        }
    }

    pub fn client(&self) -> LearnerClient<Channel> {
        let channel = proto::transport::channel::connect_lazy(&self.address.to_string()).unwrap();
        proto::transport::channel::learner_client(channel)
    }

    pub fn manifest_json(&self) -> Bytes {
        let manifest = dataset().manifest(RULES_VERSION);
        serde_json::to_vec(&manifest).unwrap().into()
    }

    /// Simulated actors: insert rows into both shards as fast as their credit allows.
    pub fn feed(&self) -> JoinHandle<()> {
        let shards = self.shards.clone();
        tokio::spawn(async move {
            loop {
                shards.iter().for_each(|s| s.insert(16));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    pub fn stop(&self) {
        if let Some(stop) = self.stop.lock().unwrap().take() {
            let _ = stop.send(());
        }
    }

    pub async fn ended(&mut self) -> Ended {
        let task = self.task.take().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
        ended.expect("the learner ends").expect("it does not panic")
    }
}
