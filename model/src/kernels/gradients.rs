//! Differentiable forward passes.
//!
//! Small strided convolutions on a CPU use our own gradients (`trunk_grad`);
//! heads, losses and everything else use libtorch's.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::kernels::trunk_grad::{self, Recorded};
use crate::network::Network;
use crate::network::head_plan::HeadPlan;
use crate::network::layer::as_i64;

/// Q-values of a batch, with the state that their gradients need.
#[derive(Debug)]
pub struct Differentiable<'a> {
    network: &'a Network,
    q: Tensor,
    /// If the trunk uses our own gradients: its recorded values, and its features as
    /// the leaf at which libtorch's gradients end.
    own: Option<(Recorded, Tensor)>,
}

impl Network {
    /// As [`Network::forward_rows`].
    ///
    /// # Errors
    /// As there.
    pub fn differentiable_rows(
        &self,
        windows: &Tensor,
        plan: &HeadPlan,
        scale: Option<&Tensor>,
    ) -> Result<Differentiable<'_>> {
        let own = self.record(windows, &[plan.samples()])?;
        let q = match &own {
            Some((_, features)) => self.rows_of(features, plan, scale)?,
            None => self.forward_rows(windows, plan, scale)?,
        };
        Ok(Differentiable {
            network: self,
            q,
            own,
        })
    }

    /// As [`Network::forward_groups`].
    ///
    /// # Errors
    /// As there.
    pub fn differentiable_groups(
        &self,
        windows: &Tensor,
        scale: Option<&Tensor>,
    ) -> Result<Differentiable<'_>> {
        let groups = windows.size().first().copied().unwrap_or(0);
        let agents = self.spec().agents;
        let samples = usize::try_from(groups).unwrap_or(0) * agents;
        let flat = match windows.dim() {
            0 | 1 => windows.shallow_clone(),
            _ => windows.f_flatten(0, 1)?,
        };
        let own = self.record(&flat, &[samples])?;
        let batch = [groups, as_i64(&[agents])[0]];
        let q = match &own {
            Some((_, features)) => self.groups_of(features, scale, batch)?,
            None => self.forward_groups(windows, scale)?,
        };
        Ok(Differentiable {
            network: self,
            q,
            own,
        })
    }

    fn record(&self, windows: &Tensor, batch: &[usize]) -> Result<Option<(Recorded, Tensor)>> {
        let (trunk, compute) = self.trunk();
        if !trunk_grad::is_for(trunk, compute, self.parameters()) {
            return Ok(None);
        }
        self.check_windows(windows, &as_i64(batch))?;
        tch::no_grad(|| {
            let recorded = Recorded::forward(trunk, self.parameters(), windows, compute)?;
            let features = recorded.features()?.f_contiguous()?;
            let features = features.f_set_requires_grad(true)?;
            Ok(Some((recorded, features)))
        })
    }
}

impl Differentiable<'_> {
    /// The Q-values, in the shape of the forward pass of the same name.
    pub fn q(&self) -> &Tensor {
        &self.q
    }

    /// Gradients of a scalar computed from [`Differentiable::q`], in the order
    /// of [`Network::trainable`].
    ///
    /// # Errors
    /// libtorch's.
    pub fn gradients(self, loss: &Tensor) -> Result<Vec<Tensor>> {
        let mut parameters = self.network.trainable();
        let Some((recorded, features)) = self.own else {
            return Ok(Tensor::f_run_backward(&[loss], &parameters, false, false)?);
        };
        let (trunk, _) = self.network.trunk();
        // Our own gradients take the trunk's place in the order.
        let convolutions = 2 * trunk.layers.len();
        let mut wanted = parameters.split_off(convolutions);
        wanted.push(features);
        let mut heads = Tensor::f_run_backward(&[loss], &wanted, false, false)?;
        let Some(features) = heads.pop() else {
            return Ok(heads);
        };
        let features = features.f_to_kind(Kind::Float)?;
        let mut all =
            tch::no_grad(|| recorded.gradients(trunk, self.network.parameters(), &features))?;
        all.extend(heads);
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::layer::LEAK;
    use crate::network::spec::{Activation, NetworkKind, NetworkSpec};
    use crate::network::trunk::Compute;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    fn network(spec: &NetworkSpec) -> Network {
        Network::new(spec, &mut ChaCha8Rng::seed_from_u64(3), Device::Cpu).unwrap()
    }

    fn windows(lead: &[i64], spec: &NetworkSpec) -> Tensor {
        let n = spec.window;
        let size = [lead, as_i64(&[spec.history, n, n, n]).as_slice()].concat();
        let count: i64 = size.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| ((i * i % 99_991 * 31 + i * 7919) % 100_003) as f32 / 100_003.0)
            .collect();
        Tensor::from_slice(&values).view(&size[..])
    }

    /// A loss with a different weight for every Q-value.
    fn loss(q: &Tensor) -> Tensor {
        let count = i64::try_from(q.numel()).unwrap();
        let weights: Vec<f32> = (0..count).map(|i| (i % 7) as f32 - 2.5).collect();
        (q.flatten(0, -1) * Tensor::from_slice(&weights)).sum(q.kind())
    }

    /// libtorch's gradients in f64 of the branch of the network that was
    /// computed: the signs of activations are kept, because near zero rounding
    /// decides the sign, and a gradient jumps with it.
    fn exact(
        network: &Network,
        forward: &Differentiable<'_>,
        q: impl Fn(&Network, &Tensor) -> Tensor,
    ) -> Vec<Tensor> {
        let (recorded, _) = forward.own.as_ref().unwrap();
        let network = network.to_f64().unwrap();
        let (trunk, p) = (network.trunk().0, network.parameters());
        let mut x = recorded.values()[0].to_kind(Kind::Double);
        for (layer, output) in trunk.layers.iter().zip(&recorded.values()[1..]) {
            let (weight, bias) = (p.at(layer.weight), p.at(layer.bias));
            let sums = if layer.is_dense() {
                layer.multiply(&x, weight, bias)
            } else {
                layer.convolve(&x, weight, bias)
            };
            let slope = match trunk.activation {
                Activation::LeakyRelu => f64::from(LEAK),
                other => panic!("{other:?}"),
            };
            let sums = sums.unwrap();
            x = sums.where_self(&output.gt(0.0), &(&sums * slope));
        }
        let loss = loss(&q(&network, &x.flatten(1, -1)));
        Tensor::run_backward(&[loss], &network.trainable(), false, false)
    }

    fn near(bound: f64, name: &str, own: &[Tensor], libtorch: &[Tensor], network: &Network) {
        assert_eq!(own.len(), libtorch.len(), "{name}");
        for ((a, b), (parameter, _)) in own.iter().zip(libtorch).zip(network.parameters().iter()) {
            assert_eq!(a.size(), b.size(), "{name} {parameter}");
            let difference = (a - b).norm().double_value(&[]);
            let norm = b.norm().double_value(&[]);
            assert!(norm > 0.0, "{name} {parameter}: nothing to compare");
            let within = difference < bound * norm;
            assert!(within, "{name} {parameter}: {difference} of {norm}");
        }
    }

    #[test]
    fn rows_have_libtorchs_gradients_whatever_the_history_and_memory_order() {
        for (history, window, channels_last, shared) in [
            (1, 24, true, 0),
            (4, 13, false, 0),
            (2, 8, true, 0),
            (1, 24, true, 40),
            (2, 13, false, 7),
        ] {
            let mut spec = NetworkSpec::small(3, history, Some(2));
            spec.window = window;
            if shared > 0 {
                spec.share(shared).unwrap();
            }
            let mut network = network(&spec);
            network.set_compute(Compute {
                channels_last,
                ..Compute::default()
            });
            let windows = windows(&[5], &spec);
            let plan = HeadPlan::new(&[0, 2, 2, 1, 0], 3, Device::Cpu).unwrap();
            let scale = Tensor::from_slice(&[0_i64, 1, 1, 0, 1]);
            let q = network.forward_rows(&windows, &plan, Some(&scale)).unwrap();
            let forward = network
                .differentiable_rows(&windows, &plan, Some(&scale))
                .unwrap();
            assert!(forward.q().allclose(&q, 1e-6, 1e-6, false));
            let libtorch = exact(&network, &forward, |network, features| {
                network.rows_of(features, &plan, Some(&scale)).unwrap()
            });
            let own = loss(forward.q());
            let own = forward.gradients(&own).unwrap();
            near(1e-5, "rows", &own, &libtorch, &network);
        }
    }

    #[test]
    fn heads_without_targets_change_no_gradient() {
        let mut spec = NetworkSpec::small(3, 1, None);
        spec.window = 8;
        let network = network(&spec).to_f64().unwrap();
        let windows = windows(&[5], &spec).to_kind(Kind::Double);
        let own = [0_i64, 2, 2, 1, 0];
        let taught = |sample: usize, agent: usize| (sample + agent).is_multiple_of(3);
        let weights: Vec<f32> = (0..5 * 3 * 6)
            .map(|i| {
                if taught(i / 18, i / 6 % 3) {
                    1.0 + i as f32
                } else {
                    0.0
                }
            })
            .collect();
        let gradients = |plan: HeadPlan| {
            let forward = network.differentiable_rows(&windows, &plan, None).unwrap();
            let q = plan.own(forward.q()).unwrap().detach();
            let weights = plan.arrange(&weights).unwrap().to_kind(Kind::Double);
            let loss = (forward.q() * weights).sum(Kind::Double);
            (q, forward.gradients(&loss).unwrap())
        };
        let plan = |wanted: &dyn Fn(usize, usize) -> bool| {
            HeadPlan::several(&own, 3, Device::Cpu, wanted).unwrap()
        };
        let (q, few) = gradients(plan(&taught));
        let (all_q, all) = gradients(plan(&|_, _| true));
        assert!(q.allclose(&all_q, 1e-12, 1e-12, false));
        near(1e-12, "few heads", &few, &all, &network);
    }

    #[test]
    fn groups_have_libtorchs_gradients() {
        let mut spec = NetworkSpec::small(2, 1, Some(2));
        (spec.window, spec.kind) = (12, NetworkKind::Commnet);
        let network = network(&spec);
        let windows = windows(&[3, 2], &spec);
        let scale = Tensor::from_slice2(&[[0_i64, 1], [1, 1], [0, 0]]);
        let q = network.forward_groups(&windows, Some(&scale)).unwrap();
        let forward = network
            .differentiable_groups(&windows, Some(&scale))
            .unwrap();
        assert!(forward.q().allclose(&q, 1e-6, 1e-6, false));
        let libtorch = exact(&network, &forward, |network, features| {
            network.groups_of(features, Some(&scale), [3, 2]).unwrap()
        });
        let own = loss(forward.q());
        let own = forward.gradients(&own).unwrap();
        near(1e-5, "groups", &own, &libtorch, &network);
    }

    #[test]
    fn other_trunks_are_left_to_libtorch() {
        let mut spec = NetworkSpec::reference_torch(NetworkKind::Collab, 1);
        spec.window = 37;
        let network = network(&spec);
        let windows = windows(&[1], &spec);
        let plan = HeadPlan::new(&[0], 1, Device::Cpu).unwrap();
        let forward = network.differentiable_rows(&windows, &plan, None).unwrap();
        assert!(forward.own.is_none());
        let network = network.to_f64().unwrap();
        let forward = network.differentiable_rows(&windows, &plan, None).unwrap();
        let own = loss(forward.q());
        let q = network.forward_rows(&windows, &plan, None).unwrap();
        let libtorch = Tensor::run_backward(&[loss(&q)], &network.trainable(), false, false);
        let own = forward.gradients(&own).unwrap();
        near(1e-10, "reference", &own, &libtorch, &network);
    }

    #[test]
    fn blocks_change_neither_values_nor_gradients() {
        let mut torch = NetworkSpec::reference_torch(NetworkKind::Collab, 2);
        let mut tf = NetworkSpec::reference_tf(2);
        // Odd and even numbers of outputs, equal and unequal padding.
        (torch.window, tf.window, tf.history) = (37, 18, 2);
        for conv in torch.conv.iter_mut().chain(&mut tf.conv) {
            conv.channels = 12;
        }
        let mut smaller = torch.clone();
        smaller.window = 38;
        let same = torch.clone();
        for (spec, slope) in [(torch, 0.25), (same, -0.3), (smaller, 0.25), (tf, 0.1)] {
            let mut network = network(&spec).to_f64().unwrap();
            let slopes = network.parameters().iter().filter(|(_, p)| p.numel() == 1);
            tch::no_grad(|| slopes.for_each(|(_, p)| drop(p.shallow_clone().fill_(slope))));
            let windows = windows(&[3], &spec);
            let plan = HeadPlan::new(&[0, 1, 1], 2, Device::Cpu).unwrap();
            let mut found = Vec::new();
            for blocked in [false, true] {
                network.set_compute(Compute {
                    channels_last: true,
                    blocked,
                    ..Compute::default()
                });
                let acted = tch::no_grad(|| network.forward_rows(&windows, &plan, None).unwrap());
                let forward = network.differentiable_rows(&windows, &plan, None).unwrap();
                let q = forward.q().detach();
                assert!(acted.allclose(&q, 1e-10, 1e-12, false));
                let loss = loss(forward.q());
                found.push((q, forward.gradients(&loss).unwrap()));
            }
            let (plain, blocked) = (&found[0], &found[1]);
            let apart = (&blocked.0 - &plain.0).norm() / plain.0.norm();
            let apart = apart.double_value(&[]);
            assert!(apart < 1e-12, "{slope} {}: {apart}", spec.window);
            let name = format!("blocked {slope} {}", spec.window);
            near(1e-10, &name, &blocked.1, &plain.1, &network);
        }
    }

    #[test]
    fn windows_of_another_size_are_refused() {
        let spec = NetworkSpec::small(2, 1, None);
        let network = network(&spec);
        let plan = HeadPlan::new(&[0, 1], 2, Device::Cpu).unwrap();
        let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let (rows, groups) = (zeros(&[2, 1, 9, 9, 9]), zeros(&[4]));
        for error in [
            network.differentiable_rows(&rows, &plan, None).unwrap_err(),
            network.differentiable_groups(&groups, None).unwrap_err(),
        ] {
            assert!(error.to_string().contains("windows"), "{error}");
        }
    }
}
