//! A Q-network as policy: windows of all groups rendered into one buffer, one
//! batched forward pass.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::environment::rules::Rules;
use common::environment::window;
use common::imaging::scan::Scan;
use common::imaging::volume::Voxels;
use model::{Compute, HeadPlan, ModelError, Network, NetworkKind};
use tch::{Device, Tensor};

use crate::rollout::policy::{Policy, PolicyError, QValues, View};

/// How windows of a float volume are rendered; byte volumes give bytes either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Samples {
    /// Truncated to bytes, as the learner renders rows for training.
    Bytes,
    /// Not truncated, as in the published evaluation.
    Exact,
}

/// Where the time of the forward passes went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyTimes {
    /// Cutting windows out of volumes.
    pub render: Duration,
    /// The network.
    pub forward: Duration,
    pub batches: u64,
    pub observations: u64,
}

type Clock = Box<dyn Fn() -> Duration + Send>;

/// Q-values of a network, whose weights can be replaced at any time. Used by one
/// thread.
pub struct NetworkPolicy {
    rules: Rules,
    samples: Samples,
    device: Device,
    bf16: bool,
    network: Option<Network>,
    version: u64,
    bytes: Vec<u8>,
    floats: Vec<f32>,
    clock: Clock,
    times: PolicyTimes,
}

impl fmt::Debug for NetworkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkPolicy")
            .field("device", &self.device)
            .field("version", &self.version)
            .field("samples", &self.samples)
            .finish_non_exhaustive()
    }
}

impl NetworkPolicy {
    /// A policy without weights: see [`NetworkPolicy::set_network`].
    #[must_use]
    pub fn new(rules: &Rules, samples: Samples, device: Device) -> Self {
        Self {
            rules: rules.clone(),
            samples,
            device,
            bf16: false,
            network: None,
            version: 0,
            bytes: Vec::new(),
            floats: Vec::new(),
            clock: Box::new(|| Duration::ZERO),
            times: PolicyTimes::default(),
        }
    }

    /// Measures [`PolicyTimes`] with a clock: the time since any fixed moment.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Duration + Send + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Convolutions in bfloat16 from the next weights on; heads stay f32.
    #[must_use]
    pub fn with_bf16(mut self, bf16: bool) -> Self {
        self.bf16 = bf16;
        self
    }

    /// Uses new weights from the next call on.
    ///
    /// # Errors
    /// [`PolicyError::Unfit`] for a network built for other rules; the previous
    /// weights stay in use.
    pub fn set_network(&mut self, network: &Network, version: u64) -> Result<(), PolicyError> {
        self.take_network(network.deep_clone(self.device)?, version)
    }

    /// Like [`NetworkPolicy::set_network`], without a copy if the network is on the
    /// policy's device.
    ///
    /// # Errors
    /// As [`NetworkPolicy::set_network`].
    pub fn take_network(&mut self, network: Network, version: u64) -> Result<(), PolicyError> {
        check(&self.rules, &network)?;
        let mut network = if network.device() == self.device {
            network
        } else {
            network.deep_clone(self.device)?
        };
        network.set_compute(Compute::acting(network.spec(), self.device, self.bf16)?);
        self.network = Some(network);
        self.version = version;
        Ok(())
    }

    /// The times since the last call.
    pub fn take_times(&mut self) -> PolicyTimes {
        std::mem::take(&mut self.times)
    }

    /// Windows `[B, H, n, n, n]` in 0..1 of all observations, on the device.
    fn windows(&mut self, views: &[View<'_>], batch: usize) -> Result<Tensor, PolicyError> {
        let (n, history) = (self.rules.window_size, self.rules.history);
        let is_float = |v: &View<'_>| matches!(v.scan.volume.voxels(), Voxels::F32(_));
        let count = batch * history * n.pow(3);
        let rules = &self.rules;
        let windows = if self.samples == Samples::Exact && views.iter().any(is_float) {
            render(rules, views, &mut self.floats, count, window::render_f32)
        } else {
            render(rules, views, &mut self.bytes, count, window::render)
        };
        let size = as_i64(&[batch, history, n, n, n]);
        let windows = windows.and_then(|w| w.f_reshape(size)?.f_to_device(self.device));
        Ok(model::render::to_unit(&windows.map_err(ModelError::from)?)?)
    }
}

impl Policy for NetworkPolicy {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        let batch: usize = views.iter().map(|v| v.observations.len()).sum();
        if self.network.is_none() {
            return Err(PolicyError::NoWeights);
        }
        if batch == 0 {
            return Ok(Vec::new());
        }
        let begin = (self.clock)();
        let windows = self.windows(views, batch)?;
        check_volumes(views)?;
        let rendered = (self.clock)();
        let network = self.network.as_ref().ok_or(PolicyError::NoWeights)?;
        let q = tch::no_grad(|| forward(network, views, &windows, batch))?;
        self.times.render += rendered.saturating_sub(begin);
        self.times.forward += (self.clock)().saturating_sub(rendered);
        self.times.batches += 1;
        self.times.observations += batch as u64;
        if q.as_flattened().iter().any(|v| !v.is_finite()) {
            let version = self.version;
            return Err(PolicyError::NotFinite { version });
        }
        Ok(q)
    }

    fn weights_version(&self) -> u64 {
        self.version
    }
}

/// Fails if a volume of the views changed: each volume is asked once where its views are
/// neighbours.
fn check_volumes(views: &[View<'_>]) -> Result<(), PolicyError> {
    let mut before: Option<&Arc<Scan>> = None;
    for view in views {
        if before.is_none_or(|scan| !Arc::ptr_eq(scan, view.scan)) {
            view.scan.volume.check()?;
        }
        before = Some(view.scan);
    }
    Ok(())
}

fn forward(
    network: &Network,
    views: &[View<'_>],
    windows: &Tensor,
    batch: usize,
) -> Result<Vec<QValues>, PolicyError> {
    let spec = network.spec();
    let observations = views.iter().flat_map(|v| v.observations);
    let scale: Vec<i64> = observations.map(|o| i64::from(o.scale)).collect();
    let scale = Tensor::f_from_slice(&scale)
        .and_then(|s| s.f_to_device(network.device()))
        .map_err(ModelError::from)?;
    let q = match spec.kind {
        NetworkKind::Collab => {
            let agents = views.iter().flat_map(|v| v.agents);
            let agents: Vec<i64> = agents.map(|&a| i64::from(a)).collect();
            let plan = HeadPlan::new(&agents, spec.agents, network.device())?;
            network.forward_rows(windows, &plan, Some(&scale))?
        }
        NetworkKind::Commnet => {
            let whole =
                |v: &&View<'_>| (0..spec.agents).eq(v.agents.iter().map(|&a| usize::from(a)));
            if let Some(v) = views.iter().find(|v| !whole(v)) {
                return Err(PolicyError::Group {
                    expected: spec.agents,
                    found: v.agents.to_vec(),
                });
            }
            let groups = as_i64(&[views.len(), spec.agents]);
            let size = [groups.as_slice(), &windows.size()[1..]].concat();
            let windows = windows.f_reshape(&size).map_err(ModelError::from)?;
            let scale = scale.f_reshape(&groups).map_err(ModelError::from)?;
            network.forward_groups(&windows, Some(&scale))?
        }
    };
    let mut values = vec![[0.0; 6]; batch];
    let q = q
        .f_to_device(Device::Cpu)
        .and_then(|q| q.f_contiguous())
        .map_err(ModelError::from)?;
    q.f_copy_data(values.as_flattened_mut(), batch * 6)
        .map_err(ModelError::from)?;
    Ok(values)
}

/// Refuses a network whose inputs or outputs are not those of the rules.
fn check(rules: &Rules, network: &Network) -> Result<(), PolicyError> {
    let (spec, scales) = (network.spec(), rules.scales.len());
    let fields = [
        ("window", rules.window_size, spec.window),
        ("history", rules.history, spec.history),
        ("actions", 6, spec.actions),
        ("scales", scales, spec.scales.unwrap_or(scales)),
    ];
    for (field, expected, found) in fields {
        if expected != found {
            let [expected, found] = [expected, found].map(|n| n.to_string());
            return Err(PolicyError::Unfit {
                field,
                expected,
                found,
            });
        }
    }
    Ok(())
}

type Render<T> =
    fn(&common::imaging::volume::Volume, window::WindowRule, usize, [i32; 3], u8, &mut [T]);

/// Renders every frame of every observation, one after another: `count` samples, in a
/// buffer that only grows.
fn render<T: Copy + Default + tch::kind::Element>(
    rules: &Rules,
    views: &[View<'_>],
    buffer: &mut Vec<T>,
    count: usize,
    each: Render<T>,
) -> Result<Tensor, tch::TchError> {
    let n = rules.window_size;
    buffer.resize(count.max(buffer.len()), T::default());
    let mut cubes = buffer[..count].chunks_exact_mut(n.pow(3));
    for view in views {
        let frames = view.observations.iter().flat_map(|o| &o.frames);
        for (frame, cube) in frames.zip(&mut cubes) {
            if frame.valid {
                let (volume, at) = (&view.scan.volume, frame.position.map(i32::from));
                each(volume, rules.window, n, at, frame.stride, cube);
            } else {
                cube.fill(T::default());
            }
        }
    }
    Tensor::f_from_slice(&buffer[..count])
}

fn as_i64(sizes: &[usize]) -> Vec<i64> {
    sizes
        .iter()
        .map(|&s| i64::try_from(s).unwrap_or(i64::MAX))
        .collect()
}

#[cfg(test)]
mod tests;
