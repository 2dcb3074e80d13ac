//! What acting costs, on synthetic scans: the environment alone with its windows
//! rendered, and the network's policy. What `cargo xtask bench actor` measures
//! with. Prints one JSON line.

use std::sync::Arc;
use std::time::Instant;

use actor::rollout::Rollout;
use actor::rollout::network_policy::{NetworkPolicy, Samples};
use actor::rollout::policy::{Policy, PolicyError, QValues, RandomPolicy, View};
use clap::{Parser, ValueEnum};
use common::config::{Config, Sources};
use common::environment::window::{WindowRule, render};
use common::imaging::geometry::Geometry;
use common::imaging::scan::Scan;
use common::phantom::{Phantom, PhantomSpec};
use model::{DeviceChoice, Network, NetworkKind, NetworkSpec};
use proto::messages::insert::Writer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Measure acting
#[derive(Debug, Parser)]
struct Options {
    /// What is measured
    #[arg(value_enum)]
    what: What,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// f32 or bf16
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Scans that are stepped at once
    #[arg(long, default_value_t = 8)]
    slots: usize,
    /// Agents that move together
    #[arg(long, default_value_t = 2)]
    agents: usize,
    /// Steps of all slots that are measured
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Steps before them
    #[arg(long, default_value_t = 2)]
    warmup: u32,
    /// Share of the episodes in a random pose
    #[arg(long, default_value_t = 0.0)]
    posed: f64,
    /// Samples along each axis of the environment's windows
    #[arg(long, default_value_t = 45)]
    window: usize,
    /// Stride and step of each scale of the environment, which is measured one after
    /// another
    #[arg(long, value_delimiter = ',', default_value = "1:1,2:3,3:9")]
    strides: Vec<String>,
    /// Threads of libtorch
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Steps with their new windows rendered, random actions, one thread
    Environment,
    /// The paper's network on stacks of four windows of 45³
    Network,
}

#[expect(clippy::print_stdout, reason = "its result")]
fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let scans: Vec<Arc<Scan>> = (0..4)
        .map(|seed| scan(seed, options.agents))
        .collect::<anyhow::Result<_>>()?;
    let line = match options.what {
        What::Environment => environment(&options, &scans)?,
        What::Network => network(&options, &scans)?,
    };
    println!("{line}");
    Ok(())
}

/// Steps per second at each stride, and over equally many steps of all three.
fn environment(options: &Options, scans: &[Arc<Scan>]) -> anyhow::Result<serde_json::Value> {
    let mut each = Vec::new();
    for scale in &options.strides {
        let config = config(
            options,
            &format!("[[{}]]", scale.replace(':', ",")),
            options.window,
        )?;
        let mut policy = Renderer {
            window: config.rules.window,
            size: config.rules.window_size,
            pixels: vec![0; config.rules.window_size.pow(3)],
            seen: 0,
            actions: RandomPolicy::new(1),
        };
        let (steps, seconds) = act(options, &config, scans, &mut policy)?;
        std::hint::black_box(policy.seen);
        each.push(steps as f64 / seconds);
    }
    let inverse: f64 = each.iter().map(|rate| 1.0 / rate).sum();
    Ok(serde_json::json!({
        "side": "landmarl-environment",
        "agents": options.agents,
        "slots": options.slots,
        "posed": options.posed,
        "window": options.window,
        "steps_per_s_by_stride": each,
        "steps_per_s": each.len() as f64 / inverse,
    }))
}

fn network(options: &Options, scans: &[Arc<Scan>]) -> anyhow::Result<serde_json::Value> {
    let config = config(options, "[[3,9],[2,3],[1,1]]", 45)?;
    let device = options.device.resolve();
    let named = matches!(options.device, DeviceChoice::Cuda(_));
    let name = options.device;
    anyhow::ensure!(device.is_cuda() || !named, "there is no device {name}");
    model::device::set_threads(options.threads);
    let spec = NetworkSpec::reference_torch(NetworkKind::Collab, options.agents);
    let network = Network::new(&spec, &mut ChaCha8Rng::seed_from_u64(3), device)?;
    let bf16 = options.precision == "bf16";
    let start = Instant::now();
    let policy = NetworkPolicy::new(&config.rules, Samples::Bytes, device);
    let mut policy = policy.with_bf16(bf16).with_clock(move || start.elapsed());
    policy.set_network(&network, 1)?;
    let (_, seconds) = act(options, &config, scans, &mut policy)?;
    let windows = f64::from(options.steps) * (options.slots * options.agents) as f64;
    let times = policy.take_times();
    Ok(serde_json::json!({
        "side": "landmarl-act",
        "device": format!("{device:?}"),
        "precision": options.precision,
        "agents": options.agents,
        "slots": options.slots,
        "threads": options.threads,
        "steps": options.steps,
        "seconds": seconds,
        "ms_per_window": 1e3 * seconds / windows,
        "render_share": times.render.as_secs_f64() / (times.render + times.forward).as_secs_f64(),
    }))
}

/// Steps of groups and the seconds that they took.
fn act(
    options: &Options,
    config: &Config,
    scans: &[Arc<Scan>],
    policy: &mut impl Policy,
) -> anyhow::Result<(u64, f64)> {
    let writer = Writer {
        actor: 1,
        incarnation: 1,
    };
    let exploration = vec![0.5; options.slots];
    let mut rollout = Rollout::new(config, scans, &exploration, writer)?;
    let mut steps = 0;
    let mut begin = Instant::now();
    for step in 0..options.warmup + options.steps {
        if step == options.warmup {
            (steps, begin) = (0, Instant::now());
        }
        steps += rollout.step(policy, 1.0)?.env_steps;
    }
    Ok((steps, begin.elapsed().as_secs_f64()))
}

/// Renders each new window, then acts at random.
struct Renderer {
    window: WindowRule,
    size: usize,
    pixels: Vec<u8>,
    seen: u64,
    actions: RandomPolicy,
}

impl Policy for Renderer {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        for view in views {
            for frame in view.observations.iter().filter_map(|o| o.frames.last()) {
                let (volume, at) = (&view.scan.volume, frame.position.map(i32::from));
                let (rule, n) = (self.window, self.size);
                render(volume, rule, n, at, frame.stride, &mut self.pixels);
                // Without a use the compiler could remove the rendering.
                self.seen += u64::from(std::hint::black_box(&self.pixels)[self.pixels.len() / 2]);
            }
        }
        self.actions.q_values(views)
    }
}

fn config(options: &Options, scales: &str, window: usize) -> anyhow::Result<Config> {
    let names: Vec<String> = (0..options.agents).map(|i| format!("L{i}")).collect();
    let set = vec![
        format!("data.landmarks={}", serde_json::Value::from(names)),
        format!("actor.slots={}", options.slots),
        format!("rules.scales={scales}"),
        format!("rules.window_size={window}"),
        format!("pose.share={}", options.posed),
        "rules.history=4".to_owned(),
        // Both agents at once, as rl-medical steps.
        "rules.coupling=shared".to_owned(),
        "actor.start_near=0".to_owned(),
    ];
    Ok(Config::load(&Sources {
        set,
        ..Sources::default()
    })?)
}

fn scan(seed: u64, agents: usize) -> anyhow::Result<Arc<Scan>> {
    let phantom = Phantom::generate(&PhantomSpec::with_dims([140, 160, 140]), seed)?;
    let volume = phantom.to_volume();
    Ok(Arc::new(Scan {
        name: format!("phantom {seed}"),
        geometry: Geometry::straight(volume.dims(), [1.0; 3]),
        landmarks: vec![Some([70.0, 80.0, 70.0]); agents],
        hash: [0; 32],
        volume,
    }))
}
