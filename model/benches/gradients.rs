//! One batch's gradients of the `small` network: ours against libtorch's.
//!
//!     cargo bench -p model --bench gradients
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, criterion_group, criterion_main};
use model::{Compute, HeadPlan, Network, NetworkSpec};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::{Device, Kind, Tensor};

const ROWS: usize = 64;

fn gradients(c: &mut Criterion) {
    model::device::set_threads(1);
    let spec = NetworkSpec::small(4, 1, Some(3));
    let mut network = Network::new(&spec, &mut ChaCha8Rng::seed_from_u64(1), Device::Cpu).unwrap();
    network.set_compute(Compute {
        channels_last: true,
        ..Compute::default()
    });
    let windows = Tensor::rand([64, 1, 24, 24, 24], (Kind::Float, Device::Cpu));
    let agents: Vec<i64> = (0..64).map(|i| i % 4).collect();
    let plan = HeadPlan::new(&agents, 4, Device::Cpu).unwrap();
    let scale = Tensor::zeros([64], (Kind::Int64, Device::Cpu));
    let loss = |q: &Tensor| q.square().mean(Kind::Float);
    let mut group = c.benchmark_group(format!("gradients of {ROWS} rows"));
    group.sample_size(20);
    group.bench_function("ours", |b| {
        b.iter(|| {
            let forward = network.differentiable_rows(&windows, &plan, Some(&scale));
            let forward = forward.unwrap();
            let loss = loss(forward.q());
            forward.gradients(&loss).unwrap()
        });
    });
    group.bench_function("libtorch", |b| {
        b.iter(|| {
            let q = network.forward_rows(&windows, &plan, Some(&scale)).unwrap();
            Tensor::run_backward(&[&loss(&q)], &network.trainable(), false, false)
        });
    });
    group.bench_function("forward alone", |b| {
        b.iter(|| tch::no_grad(|| network.forward_rows(&windows, &plan, Some(&scale)).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, gradients);
criterion_main!(benches);
