//! Time per training update on synthetic scans, which `cargo xtask bench learner`
//! compares with a PyTorch loop. From rows to new weights: rendering, both
//! networks, gradients, Adam, priorities. Prints one JSON line.

mod synthetic;

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use common::config::{Config, GoalsConfig, Sources};
use common::environment::rules::Scale;
use common::imaging::scan::Scan;
use common::transition::row::{AgentStep, FrameRef, RowHeader};
use learner::batch::augment::Augmenter;
use learner::batch::{Batch, Collator, SampledRow};
use learner::training::trainer::Trainer;
use model::{DeviceChoice, NetworkSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Device;

/// Measure training updates
#[derive(Debug, Parser)]
struct Options {
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// f32 or bf16
    #[arg(long, default_value = "f32")]
    precision: String,
    /// reference_torch (45³ windows, four frames) or small (24³, one frame)
    #[arg(long, default_value = "reference_torch")]
    preset: String,
    /// Rows per update
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Updates that are measured
    #[arg(long, default_value_t = 10)]
    updates: usize,
    /// Updates before them
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// CPU threads that share each batch
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Landmarks, one head each
    #[arg(long, default_value_t = 2)]
    agents: usize,
    /// Let cuDNN try its algorithms
    #[arg(long)]
    tune: bool,
    /// Any other key, such as network.shared=512; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "its output")]
fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let device = options.device.resolve();
    let named = matches!(options.device, DeviceChoice::Cuda(_));
    let choice = options.device;
    anyhow::ensure!(device.is_cuda() || !named, "{choice} does not exist");
    model::device::set_threads(1);
    model::device::tune_convolutions(options.tune && device.is_cuda());
    let config = Arc::new(config(&options)?);
    let scans: Vec<Arc<Scan>> = (0..4)
        .map(|seed| synthetic::scan([140, 160, 140], seed, options.agents))
        .collect::<anyhow::Result<_>>()?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let samples = config.rules.window_size.pow(3);
    let augmenter = Augmenter::new(&config.augment, samples, &mut rng);
    let mut collator = Collator::new(scans.clone(), &config, 1, augmenter.clone(), 1);
    let mut trainer = Trainer::new(Arc::clone(&config), config.data.landmarks.clone(), device)?;
    if device.is_cuda() {
        trainer.hold_scans(&scans, &augmenter)?;
        collator = collator.without_windows();
    }
    let mut batch = Batch::default();
    let mut spent = Spent::default();
    for update in 0..options.warmup + options.updates {
        let rows = rows(&config, &scans, &mut rng);
        let begin = Instant::now();
        collator.fill(&rows, &mut batch, &mut rng)?;
        let rendered = Instant::now();
        let report = trainer.step(&batch)?;
        wait_for(device);
        if update >= options.warmup {
            spent.render.push((rendered - begin).as_secs_f64());
            spent.whole.push(begin.elapsed().as_secs_f64());
        }
        spent.loss = report.loss;
    }
    let gflop = gflop_per_update(trainer.online().spec(), options.batch)?;
    println!("{}", spent.line(&options, device, gflop));
    Ok(())
}

/// Seconds of each update.
#[derive(Debug, Default)]
struct Spent {
    render: Vec<f64>,
    whole: Vec<f64>,
    loss: f64,
}

impl Spent {
    fn line(&mut self, options: &Options, device: Device, gflop: f64) -> serde_json::Value {
        let seconds: f64 = self.whole.iter().sum();
        let (whole, render) = (median(&mut self.whole), median(&mut self.render));
        serde_json::json!({
            "side": "landmarl",
            "device": format!("{device:?}"),
            "precision": options.precision,
            "preset": options.preset,
            "batch": options.batch,
            "agents": options.agents,
            "threads": options.threads,
            "tuned": options.tune,
            "updates": options.updates,
            "seconds": seconds,
            "ms_per_update": 1e3 * whole,
            "ms_mean": 1e3 * seconds / self.whole.len().max(1) as f64,
            // A GPU renders the windows within the step.
            "render_ms": 1e3 * render,
            "compute_ms": 1e3 * (whole - render),
            "final_loss": self.loss,
            "gflop_per_update": gflop,
        })
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn wait_for(device: Device) {
    if let Device::Cuda(n) = device {
        tch::Cuda::synchronize(i64::try_from(n).unwrap_or(0));
    }
}

fn config(options: &Options) -> anyhow::Result<Config> {
    let names: Vec<String> = (0..options.agents).map(|i| format!("L{i}")).collect();
    let mut set = vec![
        format!("data.landmarks={}", serde_json::Value::from(names)),
        format!("network.preset={}", options.preset),
        format!("learner.batch={}", options.batch),
        format!("learner.threads={}", options.threads),
        format!("learner.precision={}", options.precision),
        // As in the loop that it is compared with.
        "augment.enabled=false".to_owned(),
    ];
    if options.preset != "small" {
        set.extend(
            [
                "rules.window_size=45",
                "rules.history=4",
                "rules.scales=[[3,9],[2,3],[1,1]]",
                "network.scale_input=false",
            ]
            .map(str::to_owned),
        );
    }
    set.extend(options.set.iter().cloned());
    Ok(Config::load(&Sources {
        set,
        ..Sources::default()
    })?)
}

fn rows(config: &Config, scans: &[Arc<Scan>], rng: &mut ChaCha8Rng) -> Vec<SampledRow> {
    let row = |i: usize| {
        let scan = rng.random_range(0..scans.len());
        let scale = rng.random_range(0..config.rules.scales.len());
        let Scale { stride, step } = config.rules.scales[scale];
        let dims = scans[scan].volume.dims();
        let agent = i % config.data.landmarks.len();
        let target = scans[scan].landmarks.get(agent).copied().flatten();
        // As in training, agents are near their landmarks at all scales but the coarsest.
        let near = target.filter(|_| scale > 0 && near_landmarks(config));
        let reach = i32::from(stride) * i32::try_from(config.rules.window_size / 3).unwrap_or(1);
        let mut at: [i32; 3] = std::array::from_fn(|axis| match near {
            Some(target) => target[axis] as i32 + rng.random_range(-reach..=reach),
            None => rng.random_range(0..i32::try_from(dims[axis]).unwrap_or(1)),
        });
        let mut frames = Vec::with_capacity(config.rules.history + 1);
        for _ in 0..=config.rules.history {
            frames.push(FrameRef {
                position: at.map(|p| i16::try_from(p).unwrap_or(0)),
                stride,
                valid: true,
            });
            let axis = rng.random_range(0..3);
            at[axis] += i32::from(step) * if rng.random() { 1 } else { -1 };
        }
        let scale = u8::try_from(scale).unwrap_or(0);
        let agent = AgentStep {
            agent: u16::try_from(agent).unwrap_or(0),
            scale,
            next_scale: scale,
            action: rng.random_range(0..6),
            reward: rng.random_range(-1.0..1.0),
            discount: config.learner.gamma as f32,
            ..AgentStep::default()
        };
        let header = RowHeader {
            scan: u16::try_from(scan).unwrap_or(0),
            ..RowHeader::default()
        };
        let slot = u32::try_from(i).unwrap_or(0);
        synthetic::transition(slot, header, &agent, &frames)
    };
    (0..config.learner.batch).map(row).collect()
}

/// Whether rows teach more agents than their own, which depends on where they are.
fn near_landmarks(config: &Config) -> bool {
    config.learner.goals == GoalsConfig::All
}

/// Multiply-adds of convolutions and heads, counted twice: three passes forward
/// (online, and both networks on the bootstrap states) and one backward, which
/// costs two, less the first layer's gradient by its windows.
fn gflop_per_update(spec: &NetworkSpec, batch: usize) -> anyhow::Result<f64> {
    let inputs = std::iter::once(spec.window).chain(spec.feature_sides()?);
    let (mut forward, mut first, mut channels) = (0.0, 0.0, spec.history as f64);
    for (i, (conv, side)) in spec.conv.iter().zip(inputs).enumerate() {
        let (before, after) = conv.padding.around(side, conv.kernel, conv.stride);
        let out = (before + side + after - conv.kernel) / conv.stride + 1;
        let outputs = (out.pow(3) * conv.channels) as f64;
        let layer = 2.0 * outputs * channels * conv.kernel.pow(3) as f64;
        forward += layer;
        if i == 0 {
            first = layer;
        }
        channels = conv.channels as f64;
    }
    let mut width = spec.features()? as f64;
    for &next in spec.hidden.iter().chain([&spec.actions]) {
        forward += 2.0 * width * next as f64;
        width = next as f64;
    }
    Ok(batch as f64 * (5.0 * forward - first) / 1e9)
}
