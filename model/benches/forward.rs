//! Forward passes of windows without gradients: how many at once, in which memory
//! order. These measurements are the basis of [`Compute::acting`].
//!
//!     cargo bench -p model --bench forward
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::{Compute, HeadPlan, Network, NetworkKind, NetworkSpec};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::{Device, Kind, Tensor};

const WINDOWS: i64 = 64;

fn forward(c: &mut Criterion) {
    let published = NetworkSpec::reference_torch(NetworkKind::Collab, 1);
    let networks = [
        ("published", published),
        ("small", NetworkSpec::small(1, 1, Some(3))),
    ];
    for (name, spec) in networks {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut network = Network::new(&spec, &mut rng, Device::Cpu).unwrap();
        let [history, n] = [spec.history, spec.window].map(|v| i64::try_from(v).unwrap());
        let windows = Tensor::rand([WINDOWS, history, n, n, n], (Kind::Float, Device::Cpu));
        let plan = HeadPlan::new(&[0; 64], 1, Device::Cpu).unwrap();
        let scale = Tensor::zeros([WINDOWS], (Kind::Int64, Device::Cpu));
        let mut group = c.benchmark_group(format!("{name} network, {WINDOWS} windows"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(64));
        let mut choices = [("chosen", false), ("bf16", true)]
            .map(|(name, bf16)| (name, Compute::acting(&spec, Device::Cpu, bf16).unwrap()))
            .to_vec();
        for (order, channels_last) in [("channels first", false), ("channels last", true)] {
            choices.extend([1, 2, 8, 64].map(|at_once| {
                let compute = Compute {
                    channels_last,
                    windows: Some(at_once),
                    ..Compute::default()
                };
                (order, compute)
            }));
        }
        for (order, compute) in choices {
            network.set_compute(compute);
            let id = BenchmarkId::new(order, format!("{} at once", compute.windows.unwrap()));
            group.bench_function(id, |b| {
                b.iter(|| {
                    tch::no_grad(|| {
                        black_box(network.forward_rows(&windows, &plan, Some(&scale)).unwrap())
                    })
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
