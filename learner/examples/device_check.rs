//! Checks that a device computes the CPU's results: windows bit for bit, Q-values
//! and updates up to rounding, bf16 within its bounds, NCCL with one rank, a
//! checkpoint round trip. One line per check; exit code 1 when one fails.
//!
//!     device_check --device cuda

mod synthetic;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use common::config::{Config, Sources};
use common::environment::pose::Poses;
use common::environment::window::{WindowRule, render};
use common::imaging::scan::Scan;
use common::transition::row::{AgentStep, FrameRef, RowHeader};
use learner::batch::augment::Augmenter;
use learner::batch::device_windows::DeviceWindows;
use learner::batch::{Batch, Collator, SampledRow};
use learner::training::nccl::Nccl;
use learner::training::trainer::{StepReport, Trainer};
use model::{
    Compute, DeviceChoice, DeviceScans, FrameAt, HeadPlan, Network, NetworkKind, NetworkSpec,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Check that a device computes what the CPU does
#[derive(Debug, Parser)]
struct Options {
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// A check's result as text; an error if it failed.
type Found = anyhow::Result<String>;
type Check = fn(Device) -> Found;

#[expect(clippy::print_stdout, reason = "its output")]
fn main() -> ExitCode {
    let options = Options::parse();
    let device = options.device.resolve();
    if device == Device::Cpu && options.device != DeviceChoice::Cpu {
        let why = model::device::cuda().as_ref().err();
        println!("no GPU: {}", why.map_or("none with this index", |w| w));
        if options.device != DeviceChoice::Auto {
            return ExitCode::FAILURE;
        }
    }
    println!("device {device:?}");
    let checks: [(&str, Check); 7] = [
        ("windows are bit-equal to the CPU's", windows),
        ("painted batches are bit-equal to the CPU's", painted),
        ("Q-values in f32 are the CPU's to rounding", q_values),
        ("bf16 chooses as f32 does", half_precision),
        ("five updates are the CPU's to rounding", updates),
        ("a checkpoint's weights come back bit for bit", weights),
        ("NCCL sums over one rank", nccl),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        match check(device) {
            Ok(words) => println!("ok      {name}: {words}"),
            Err(error) => {
                failed += 1;
                println!("FAILED  {name}: {error:#}");
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn windows(device: Device) -> Found {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let config = config(true)?;
    let poses = Poses::new(&config.pose, 7);
    let scans: Vec<_> = (0..3).map(scan).collect::<anyhow::Result<_>>()?;
    let held = DeviceScans::new(scans.iter().map(|s| &s.volume), device)?;
    let mut count = 0;
    for (rule, n) in [
        (WindowRule::Centred, 45),
        (WindowRule::Centred, 24),
        (WindowRule::Reference, 45),
    ] {
        let frames: Vec<FrameAt> = (0..200)
            .map(|_| {
                let scan = rng.random_range(0..scans.len());
                let number = rng.random_range(0..3);
                FrameAt {
                    scan,
                    // Well beyond the borders.
                    position: std::array::from_fn(|_| rng.random_range(-20..90)),
                    stride: rng.random_range(1..5),
                    valid: rng.random_range(0..10) > 0,
                    pose: poses.get(number, &scans[scan].geometry),
                }
            })
            .collect();
        let found = held.render(rule, n, &frames)?.flatten(0, -1);
        let found: Vec<u8> = Vec::try_from(found.to_device(Device::Cpu))?;
        let mut expected = vec![0; n.pow(3)];
        for (frame, found) in frames.iter().zip(found.chunks_exact(n.pow(3))) {
            expected.fill(0);
            if frame.valid {
                let volume = &scans[frame.scan].volume;
                let posed = frame.pose.map(|pose| volume.posed(pose));
                let volume = posed.as_ref().unwrap_or(volume);
                let (position, stride) = (frame.position, frame.stride);
                render(volume, rule, n, position, stride, &mut expected);
            }
            anyhow::ensure!(found == expected, "{rule:?} {n} {frame:?}");
            count += 1;
        }
    }
    Ok(format!("{count} windows, strides 1 to 4, borders, poses"))
}

fn painted(device: Device) -> Found {
    let config = config(true)?;
    let (scans, host, augmenter) = batch(&config, 3, false)?;
    let (_, listed, _) = batch(&config, 3, true)?;
    let held = DeviceWindows::new(&scans, &config.rules, augmenter, device)?;
    let found = held.render(&listed.frames, &(0..host.rows), 1, Kind::Float, true)?;
    let next = found.next.unwrap_or_default();
    for (found, expected) in [(found.state, &host.state), (next, &host.next)] {
        let found: Vec<f32> = Vec::try_from(found.flatten(0, -1).to_device(Device::Cpu))?;
        let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
        anyhow::ensure!(
            differ == 0 && found.len() == expected.len(),
            "{differ} of {} samples differ",
            expected.len()
        );
    }
    Ok(format!(
        "{} samples with noise, contrast and poses; {} distinct frames of {}",
        2 * host.state.len(),
        listed.frames.frames.len(),
        2 * host.rows * config.rules.history
    ))
}

/// The paper network's Q-values of some windows, on the CPU in f32 and on a
/// device in f32 or bf16; and the range of the CPU's values.
fn both(device: Device, bf16: bool) -> anyhow::Result<(Tensor, Tensor, f64)> {
    let spec = NetworkSpec::reference_torch(NetworkKind::Collab, 2);
    let mut network = Network::new(&spec, &mut ChaCha8Rng::seed_from_u64(2), Device::Cpu)?;
    let config = config(false)?;
    // A CPU without bf16 instructions takes seconds per window.
    let rows = if device.is_cuda() { 256 } else { 4 };
    let (_, batch, _) = batch(&config, rows, false)?;
    let windows = Tensor::f_from_slice(&batch.state)?;
    let windows = windows.f_reshape([i64::from(rows), 4, 45, 45, 45])?;
    let q = |network: &Network| -> anyhow::Result<Tensor> {
        let plan = HeadPlan::new(&batch.agent, 2, network.device())?;
        let q = tch::no_grad(|| {
            network.forward_rows(&windows.to_device(network.device()), &plan, None)
        })?;
        Ok(q.to_device(Device::Cpu).to_kind(Kind::Double))
    };
    let cpu = q(&network)?;
    network = network.deep_clone(device)?;
    network.set_compute(Compute {
        bf16,
        channels_last: true,
        windows: None,
        blocked: device.is_cuda(),
        fused: false,
    });
    let range = (cpu.max() - cpu.min()).double_value(&[]);
    Ok((cpu, q(&network)?, range))
}

fn q_values(device: Device) -> Found {
    let (cpu, found, range) = both(device, false)?;
    let worst = (&cpu - &found).abs().max().double_value(&[]) / range;
    // cuDNN's TF32 convolutions, on by default as in PyTorch, round to 10 bits.
    anyhow::ensure!(worst < 3e-3, "they differ by {worst:.1e} of their range");
    Ok(format!("largest difference {worst:.1e} of the range"))
}

fn half_precision(device: Device) -> Found {
    let (cpu, found, range) = both(device, true)?;
    let choice = found.argmax(-1, true);
    let lost = cpu.amax([-1_i64].as_slice(), true) - cpu.gather(-1, &choice, false);
    let lost = lost.max().double_value(&[]) / range;
    let differ = cpu
        .argmax(-1, true)
        .not_equal_tensor(&choice)
        .sum(Kind::Int64)
        .int64_value(&[]);
    anyhow::ensure!(lost <= 5e-3, "a choice loses {lost:.1e} of the range of Q");
    Ok(format!(
        "{differ} of {} choices differ, the worst loses {lost:.1e} of the range of Q",
        choice.numel()
    ))
}

/// Compares the first update's loss, priorities and gradient norm; then the course of
/// learning, as far as Adam's sensitivity to rounding allows (its first steps are the
/// gradient's signs).
fn updates(device: Device) -> Found {
    let config = Arc::new(config(false)?);
    let (scans, host, augmenter) = batch(&config, 8, false)?;
    let (_, listed, _) = batch(&config, 8, true)?;
    let trained = |device: Device| -> anyhow::Result<Vec<StepReport>> {
        let mut trainer = Trainer::new(Arc::clone(&config), config.data.landmarks.clone(), device)?;
        let batch = if device.is_cuda() {
            trainer.hold_scans(&scans, &augmenter)?;
            &listed
        } else {
            &host
        };
        let steps = (0..5).map(|_| Ok(trainer.step(batch)?));
        steps.collect()
    };
    let (cpu, found) = (trained(Device::Cpu)?, trained(device)?);
    let apart = |a: f64, b: f64| (a - b).abs() / a.abs().max(1e-9);
    let loss = apart(cpu[0].loss, found[0].loss);
    let norm = apart(cpu[0].grad_norm, found[0].grad_norm);
    let td = cpu[0].td_errors.iter().zip(&found[0].td_errors);
    let td = td
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max);
    let last = apart(cpu[4].loss, found[4].loss);
    let words = format!(
        "first update: loss {loss:.1e}, gradient norm {norm:.1e}, priorities {td:.1e} apart; fifth: loss {last:.1e}"
    );
    anyhow::ensure!(loss < 1e-3 && norm < 1e-2 && td < 1e-2 && last < 0.1, words);
    Ok(words)
}

fn weights(device: Device) -> Found {
    let config = Arc::new(config(false)?);
    let trainer = Trainer::new(Arc::clone(&config), config.data.landmarks.clone(), device)?;
    let bytes = trainer.weights_bytes(3)?;
    let read = model::files::weights::from_bytes(&bytes)?;
    let read = read.network.parameters().iter();
    for ((name, a), (_, b)) in read.zip(trainer.average().iter()) {
        anyhow::ensure!(a.equal(&b.to_device(Device::Cpu)), "{name} differs");
    }
    Ok(format!("{} bytes", bytes.len()))
}

fn nccl(device: Device) -> Found {
    let Device::Cuda(number) = device else {
        return Ok("not run: no GPU".to_owned());
    };
    let nccl = Nccl::new(&[number])?;
    let buffer = Tensor::arange(100_003, (Kind::Float, device)) * 0.5;
    let before = buffer.copy();
    nccl.sum_to_first(std::slice::from_ref(&buffer))?;
    anyhow::ensure!(buffer.equal(&before), "the sum of one rank differs");
    Ok(format!("version {}", nccl.version()?))
}

/// Two landmarks and the paper network, f32; with or without poses and intensity
/// changes.
fn config(augmented: bool) -> anyhow::Result<Config> {
    let share = if augmented { "0.5" } else { "0" };
    let set = [
        "data.landmarks=[\"A\",\"B\"]",
        "network.preset=reference_torch",
        "network.scale_input=false",
        "rules.window_size=45",
        "rules.history=4",
        "learner.precision=f32",
        "learner.threads=1",
        &format!("augment.enabled={augmented}"),
        &format!("pose.share={share}"),
    ]
    .map(str::to_owned);
    Ok(Config::load(&Sources {
        set: set.into(),
        ..Sources::default()
    })?)
}

fn scan(seed: u64) -> anyhow::Result<Arc<Scan>> {
    synthetic::scan([64, 72, 60], seed, 0)
}

/// A batch of transitions in three scans, and its inputs.
fn batch(
    config: &Config,
    rows: u32,
    listed: bool,
) -> anyhow::Result<(Vec<Arc<Scan>>, Batch, Augmenter)> {
    let scans: Vec<_> = (0..3).map(scan).collect::<anyhow::Result<_>>()?;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let samples = config.rules.window_size.pow(3);
    let augmenter = Augmenter::new(&config.augment, samples, &mut rng);
    let mut collator = Collator::new(scans.clone(), config, 1, augmenter.clone(), 1);
    if listed {
        collator = collator.without_windows();
    }
    let sampled: Vec<SampledRow> = (0..rows).map(|i| row(config, i, &mut rng)).collect();
    let mut batch = Batch::default();
    collator.fill(&sampled, &mut batch, &mut rng)?;
    Ok((scans, batch, augmenter))
}

fn row(config: &Config, i: u32, rng: &mut ChaCha8Rng) -> SampledRow {
    let stride = 1 + (i % 3) as u8;
    let frames: Vec<FrameRef> = (0..=config.rules.history)
        .map(|step| FrameRef {
            position: std::array::from_fn(|_| rng.random_range(0..60)),
            stride,
            valid: step > 0 || !i.is_multiple_of(3),
        })
        .collect();
    let agent = AgentStep {
        agent: (i % 2) as u16,
        action: rng.random_range(0..6),
        reward: rng.random_range(-1.0..1.0),
        discount: 0.9,
        ..AgentStep::default()
    };
    let header = RowHeader {
        scan: (i % 3) as u16,
        pose: if config.pose.share > 0.0 { i % 2 } else { 0 },
        ..RowHeader::default()
    };
    synthetic::transition(i, header, &agent, &frames)
}
