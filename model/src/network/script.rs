//! TorchScript export: Python can run the network without landmarl
//! (`torch.jit.load("model.ts")`).
//!
//! `forward(windows)` or, if the network takes scales, `forward(windows,
//! scale)`: windows f32 `[A, H, n, n, n]` in 0..1, one stack per agent in order,
//! oldest frame first; scale i64 `[A]`, 0 the coarsest. It returns Q-values
//! `[A, actions]`.

use std::path::Path;

use tch::{CModule, Device, Kind, Tensor};

use crate::error::{ModelError, Result};
use crate::network::Network;
use crate::network::layer::as_i64;

/// Writes a network as TorchScript for the CPU in f32.
///
/// # Errors
/// libtorch's, or an error when the file cannot be written.
pub fn save(network: &Network, path: &Path) -> Result<()> {
    let network = network.deep_clone(Device::Cpu)?;
    // A trace stores the weights as constants, which cannot require gradients.
    network.parameters().require_gradients(false)?;
    let spec = network.spec();
    let n = spec.window;
    let size = as_i64(&[spec.agents, spec.history, n, n, n]);
    let mut inputs = vec![Tensor::f_zeros(&size, (Kind::Float, Device::Cpu))?];
    if spec.scales.is_some() {
        let kind = (Kind::Int64, Device::Cpu);
        inputs.push(Tensor::f_zeros(as_i64(&[spec.agents]), kind)?);
    }
    let q_values = |inputs: &[Tensor]| -> Result<Tensor> {
        let windows = inputs[0].f_unsqueeze(0)?;
        let scale = inputs.get(1).map(|s| s.f_unsqueeze(0)).transpose()?;
        let q = network.forward_groups(&windows, scale.as_ref())?;
        Ok(q.f_squeeze_dim(0)?)
    };
    // Find errors before the trace begins.
    let _ = tch::no_grad(|| q_values(&inputs))?;
    let mut failed = None;
    let mut trace = |inputs: &[Tensor]| {
        let q = q_values(inputs).map_err(|error| failed = Some(error));
        vec![q.unwrap_or_else(|()| Tensor::new())]
    };
    let traced =
        tch::no_grad(|| CModule::create_by_tracing("landmarl", "forward", &inputs, &mut trace))?;
    if let Some(error) = failed {
        return Err(error);
    }
    traced
        .save(path)
        .map_err(|e| ModelError::Spec(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::spec::{NetworkKind, NetworkSpec};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_script_computes_what_the_network_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut commnet = NetworkSpec::small(3, 2, None);
        commnet.kind = NetworkKind::Commnet;
        for (i, spec) in [NetworkSpec::small(3, 1, Some(2)), commnet]
            .into_iter()
            .enumerate()
        {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let network = Network::new(&spec, &mut rng, Device::Cpu).unwrap();
            let path = folder.path().join(format!("{i}.ts"));
            save(&network, &path).unwrap();
            let script = CModule::load(&path).unwrap();
            let side = as_i64(&[spec.window])[0];
            let size = [3, as_i64(&[spec.history])[0], side, side, side];
            let (count, kind) = (size.iter().product::<i64>(), (Kind::Float, Device::Cpu));
            let windows = Tensor::linspace(0.0, 1.0, count, kind);
            let windows = windows.view(size).sin().abs();
            let scale = Tensor::from_slice(&[1_i64, 0, 1]);
            let mut inputs = vec![windows.shallow_clone()];
            inputs.extend(spec.scales.map(|_| scale.shallow_clone()));
            let found = script.forward_ts(&inputs).unwrap();
            let batch = scale.unsqueeze(0);
            let scale = spec.scales.map(|_| &batch);
            let expected = network.forward_groups(&windows.unsqueeze(0), scale);
            let expected = expected.unwrap().squeeze_dim(0);
            assert_eq!(found.size(), [3, 6]);
            assert!(found.allclose(&expected, 1e-6, 1e-7, false));
            // The network itself remains trainable.
            assert!(network.trainable().iter().all(Tensor::requires_grad));
        }
    }
}
