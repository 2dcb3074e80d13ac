//! Adam on tensors, with moments that can be saved: a resume without them is a
//! cold start, and tch's optimizers do not expose theirs.
//!
//! Kingma and Ba 2015 with bias correction, as PyTorch computes it:
//! m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²,
//! p ← p − lr · m/(1 − β₁ᵗ) / (√v/√(1 − β₂ᵗ) + ε).
//! The gradients are first scaled by min(1, c / (‖g‖ + 1e-6)) over all
//! parameters together (`torch.nn.utils.clip_grad_norm_`).

use common::config::LearnerConfig;
use model::Parameters;
use tch::{Device, Kind, Tensor};

/// Elements processed at a time on the CPU: parameter, gradient,
/// moments and scratch of one chunk together fit into a core's cache.
const CPU_CHUNK: i64 = 1 << 15;

/// Why a step or a restore fails.
#[derive(Debug, thiserror::Error)]
pub enum AdamError {
    /// Applying the gradients would destroy the network.
    #[error(
        "the gradient norm is {norm}: nothing was changed; lower learner.lr or look for broken data"
    )]
    NotFinite {
        /// Infinite or NaN.
        norm: f64,
    },
    /// The saved state is for other parameters.
    #[error("optimizer state does not fit the parameters: {0}")]
    OtherParameters(String),
    #[error(transparent)]
    Model(#[from] model::ModelError),
}

impl From<tch::TchError> for AdamError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}

#[derive(Debug)]
pub struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    norm_max: f64,
    step: u64,
    m: Parameters,
    v: Parameters,
    scratch: Option<Tensor>,
}

impl Adam {
    /// A new optimizer: zero moments for these parameters.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(parameters: &Parameters, config: &LearnerConfig) -> Result<Self, AdamError> {
        Ok(Self {
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            epsilon: config.adam_epsilon,
            norm_max: config.max_grad_norm,
            step: 0,
            m: parameters.zeros_like()?,
            v: parameters.zeros_like()?,
            scratch: None,
        })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// First and second moments, in the parameters' order.
    pub fn moments(&self) -> (&Parameters, &Parameters) {
        (&self.m, &self.v)
    }

    /// Restores a saved state; changes nothing unless all of it fits.
    ///
    /// # Errors
    /// [`AdamError::OtherParameters`] for other names or shapes.
    pub fn restore(&mut self, step: u64, m: &Parameters, v: &Parameters) -> Result<(), AdamError> {
        for (saved, own) in [(m, &self.m), (v, &self.v)] {
            let sizes = |p: &Parameters| -> Vec<_> {
                let sizes = p.iter().map(|(name, t)| (name.to_owned(), t.size()));
                sizes.collect()
            };
            if sizes(saved) != sizes(own) {
                let text = "names or shapes differ".to_owned();
                return Err(AdamError::OtherParameters(text));
            }
        }
        self.m.copy_from(m)?;
        self.v.copy_from(v)?;
        self.step = step;
        Ok(())
    }

    /// Updates the parameters in place; `gradients` in the same order. Returns
    /// the norm of all gradients together, before clipping.
    ///
    /// # Errors
    /// [`AdamError::NotFinite`], with nothing changed; libtorch's errors.
    pub fn step(
        &mut self,
        parameters: &[Tensor],
        gradients: &[Tensor],
        lr: f64,
    ) -> Result<f64, AdamError> {
        if parameters.len() != self.m.len() || gradients.len() != self.m.len() {
            let (p, g, m) = (parameters.len(), gradients.len(), self.m.len());
            let text = format!("{p} parameters and {g} gradients for {m} moments");
            return Err(AdamError::OtherParameters(text));
        }
        tch::no_grad(|| {
            let norm = global_norm(gradients)?;
            if !norm.is_finite() {
                return Err(AdamError::NotFinite { norm });
            }
            self.step += 1;
            let scale = (self.norm_max / (norm + 1e-6)).min(1.0);
            let numbers = self.numbers(lr, scale);
            for (place, (p, g)) in parameters.iter().zip(gradients).enumerate() {
                self.one(place, p, g, &numbers)?;
            }
            Ok(norm)
        })
    }

    fn numbers(&self, lr: f64, scale: f64) -> Numbers {
        let t = self.step as f64;
        // p −= lr/b₁ · m / (√v/√b₂ + ε) is p += m / (√v·root + constant).
        let outer = -(1.0 - self.beta1.powf(t)) / lr;
        Numbers {
            scale,
            root: outer / (1.0 - self.beta2.powf(t)).sqrt(),
            constant: outer * self.epsilon,
        }
    }

    /// One parameter tensor, chunk by chunk.
    fn one(&mut self, place: usize, p: &Tensor, g: &Tensor, n: &Numbers) -> Result<(), AdamError> {
        let count = i64::try_from(p.numel()).unwrap_or(i64::MAX);
        let chunk = if p.device() == Device::Cpu {
            CPU_CHUNK.min(count)
        } else {
            count
        };
        let room = self.scratch.as_ref().map_or(0, |s| s.size()[0]);
        if room < chunk {
            self.scratch = Some(Tensor::f_empty([chunk], (Kind::Float, p.device()))?);
        }
        let Some(scratch) = &self.scratch else {
            return Ok(());
        };
        let flat = |t: &Tensor| t.f_view([-1_i64]);
        let (p, m, v) = (flat(p)?, flat(self.m.at(place))?, flat(self.v.at(place))?);
        let g = flat(&g.f_contiguous()?)?;
        let mut start = 0;
        while start < count {
            let width = chunk.min(count - start);
            let part = |t: &Tensor| t.f_narrow(0, start, width);
            let mut s = scratch.f_narrow(0, 0, width)?;
            let (mut p, mut m, mut v) = (part(&p)?, part(&m)?, part(&v)?);
            let _ = part(&g)?.f_mul_scalar_out(&s, n.scale)?;
            let _ = m.f_lerp_(&s, 1.0 - self.beta1)?;
            let _ = s.f_square_()?;
            let _ = v.f_lerp_(&s, 1.0 - self.beta2)?;
            let _ = v.f_sqrt_out(&s)?;
            let _ = s.f_mul_scalar_(n.root)?;
            let _ = s.f_add_scalar_(n.constant)?;
            let _ = p.f_addcdiv_(&m, &s)?;
            start += width;
        }
        Ok(())
    }
}

/// Scalars of one step.
struct Numbers {
    scale: f64,
    root: f64,
    constant: f64,
}

/// √Σ‖g‖² with a single read from the device.
fn global_norm(gradients: &[Tensor]) -> Result<f64, AdamError> {
    let mut norms = Vec::with_capacity(gradients.len());
    for g in gradients {
        norms.push(g.f_norm()?);
    }
    Ok(Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::Config;

    fn setup(clip: f64) -> (Adam, Vec<Tensor>) {
        let mut config = Config::defaults().unwrap().learner;
        (config.adam_beta1, config.adam_beta2, config.adam_epsilon) = (0.9, 0.999, 1e-8);
        config.max_grad_norm = clip;
        let entries = vec![
            ("p".to_owned(), Tensor::from_slice(&[1.0_f32, -2.0, 3.0])),
            ("q".to_owned(), Tensor::from_slice2(&[[0.5_f32]])),
        ];
        let parameters = Parameters::new(entries);
        (
            Adam::new(&parameters, &config).unwrap(),
            parameters.tensors(),
        )
    }

    fn gradients() -> [Vec<Tensor>; 3] {
        [
            ([0.1, -0.2, 3.0], 0.4),
            ([0.3, 0.0, -4.0], 12.0),
            ([-0.1, 0.5, 0.0], -0.3_f32),
        ]
        .map(|(p, q): ([f32; 3], f32)| vec![Tensor::from_slice(&p), Tensor::from_slice2(&[[q]])])
    }

    fn values(parameters: &[Tensor]) -> Vec<f32> {
        parameters
            .iter()
            .flat_map(|t| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap())
            .collect()
    }

    /// Values from PyTorch 2.11:
    /// ```python
    /// p = torch.tensor([1., -2., 3.], requires_grad=True); q = torch.tensor([[.5]], requires_grad=True)
    /// o = torch.optim.Adam([p, q], lr=.1, betas=(.9, .999), eps=1e-8)
    /// for g, h in [([.1, -.2, 3.], .4), ([.3, 0., -4.], 12.), ([-.1, .5, 0.], -.3)]:
    ///     p.grad = torch.tensor(g); q.grad = torch.tensor([[h]])
    ///     norm = torch.nn.utils.clip_grad_norm_([p, q], clip); o.step(); print(p, q, norm)
    /// ```
    #[test]
    fn steps_equal_pytorchs() {
        let free = [
            [0.899_999_98, -1.899_999_98, 2.900_000_10, 0.400_000_01],
            [0.808_221_88, -1.832_994_10, 2.919_351_10, 0.323_396_41],
            [0.759_852_71, -1.873_094_80, 2.934_309_48, 0.265_796_54],
        ];
        let clipped = [
            [0.900_000_04, -1.899_999_98, 2.900_000_10, 0.400_000_01],
            [0.802_143_34, -1.832_994_10, 2.858_858_82, 0.317_075_13],
            [0.804_098_19, -1.881_578_80, 2.827_056_41, 0.263_638_62],
        ];
        for (clip, expected) in [(1e9, free), (2.0, clipped)] {
            let (mut adam, parameters) = setup(clip);
            for ((g, expected), norm) in
                gradients()
                    .iter()
                    .zip(&expected)
                    .zip([3.034_798_1, 12.652_668, 0.591_608])
            {
                let found = adam.step(&parameters, g, 0.1).unwrap();
                assert!((found - norm).abs() < 1e-5, "{found}");
                for (f, e) in values(&parameters).iter().zip(expected) {
                    assert!(
                        (f64::from(*f) - e).abs() < 3e-6,
                        "clip {clip}: {:?}",
                        values(&parameters)
                    );
                }
            }
            assert_eq!(adam.steps(), 3);
        }
        // exp_avg and exp_avg_sq of p after the clipped steps.
        let (mut adam, parameters) = setup(2.0);
        for g in &gradients() {
            adam.step(&parameters, g, 0.1).unwrap();
        }
        let (m, v) = adam.moments();
        for (found, expected) in [
            (
                values(&[m.at(0).shallow_clone()]),
                [-0.000_394_046, 0.039_323_84, 0.103_237_413],
            ),
            (
                values(&[v.at(0).shallow_clone()]),
                [1.658_09e-5, 2.673_377e-4, 4.300_354e-3],
            ),
        ] {
            let near = |(f, e): (&f32, &f64)| (f64::from(*f) - e).abs() < 1e-6;
            assert!(found.iter().zip(&expected).all(near), "{found:?}");
        }
    }

    #[test]
    fn a_restored_state_continues_bit_for_bit() {
        let [a, b, c] = gradients();
        let (mut whole, parameters) = setup(2.0);
        for g in [&a, &b, &c] {
            whole.step(&parameters, g, 0.1).unwrap();
        }
        let (mut first, half) = setup(2.0);
        first.step(&half, &a, 0.1).unwrap();
        first.step(&half, &b, 0.1).unwrap();
        let (mut second, _) = setup(2.0);
        let (m, v) = first.moments();
        second.restore(first.steps(), m, v).unwrap();
        second.step(&half, &c, 0.1).unwrap();
        assert_eq!(values(&half), values(&parameters));
        let other = Parameters::new(vec![("p".to_owned(), Tensor::from_slice(&[1.0_f32]))]);
        assert!(second.restore(1, &other, &other).is_err());
    }

    #[test]
    fn large_tensors_are_updated_like_their_chunks() {
        let config = Config::defaults().unwrap().learner;
        let count = 2 * CPU_CHUNK + 7;
        let grid = |from: f64| Tensor::linspace(from, 1.0, count, (Kind::Float, Device::Cpu));
        let one = Parameters::new(vec![("p".to_owned(), grid(-1.0))]);
        let (whole, gradient) = (one.tensors(), grid(-3.0));
        let chunks = grid(-1.0).chunk(3, 0).into_iter();
        let parts: Vec<_> = chunks.map(|t| t.contiguous()).collect();
        let entries = (0_usize..)
            .zip(&parts)
            .map(|(i, t)| (i.to_string(), t.shallow_clone()));
        let split = Parameters::new(entries.collect());
        let pieces: Vec<_> = gradient.chunk(3, 0);
        let mut a = Adam::new(&one, &config).unwrap();
        let mut b = Adam::new(&split, &config).unwrap();
        for _ in 0..3 {
            a.step(&whole, &[gradient.shallow_clone()], 0.1).unwrap();
            b.step(&parts, &pieces, 0.1).unwrap();
        }
        let (a, b) = (values(&whole), values(&parts));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
        let begin = values(&[grid(-1.0)]);
        assert!(a.iter().zip(begin).any(|(a, b)| (a - b).abs() > 0.1));
    }

    #[test]
    fn gradients_that_are_not_finite_change_nothing() {
        let (mut adam, parameters) = setup(1.0);
        let before = values(&parameters);
        let bad = vec![
            Tensor::from_slice(&[f32::NAN, 0.0, 0.0]),
            Tensor::from_slice2(&[[0.0_f32]]),
        ];
        let text = adam.step(&parameters, &bad, 0.1).unwrap_err().to_string();
        assert!(text.contains("gradient norm is NaN"), "{text}");
        assert_eq!((values(&parameters), adam.steps()), (before, 0));
        assert!(adam.step(&parameters[..1], &bad, 0.1).is_err());
    }
}
