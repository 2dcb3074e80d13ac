//! A Q-network: parameters and forward passes.

pub(crate) mod communication;
pub mod head_plan;
pub(crate) mod heads;
pub mod infer;
pub mod init;
pub(crate) mod layer;
pub mod layout;
pub mod parameters;
pub mod presets;
pub mod script;
pub mod spec;
pub(crate) mod trunk;

use rand::Rng;
use tch::{Device, Kind, Tensor};

use crate::error::{ModelError, Result};
use crate::network::head_plan::HeadPlan;
use crate::network::heads::Heads;
use crate::network::layer::as_i64;
use crate::network::layout::Layout;
use crate::network::parameters::Parameters;
use crate::network::spec::{NetworkKind, NetworkSpec};
use crate::network::trunk::{Compute, Trunk};

/// A Q-network. Forward passes record gradients unless they run under
/// [`tch::no_grad`]. It is `Send`; only one thread may use it at a time.
#[derive(Debug)]
pub struct Network {
    spec: NetworkSpec,
    parameters: Parameters,
    trunk: Trunk,
    streams: Vec<Heads>,
    compute: Compute,
}

impl Network {
    /// A network with initial values drawn from `rng` (see [`crate::network::init`]).
    ///
    /// # Errors
    /// When the spec is invalid or the device has no memory.
    pub fn new(spec: &NetworkSpec, rng: &mut impl Rng, device: Device) -> Result<Self> {
        Self::from_parameters(spec, init::draw(spec, rng)?.deep_clone(device)?)
    }

    /// A network with given parameters, which must be in the order of [`Layout`].
    ///
    /// # Errors
    /// [`ModelError::OtherNetwork`] when a name or shape differs from the spec's.
    pub fn from_parameters(spec: &NetworkSpec, parameters: Parameters) -> Result<Self> {
        let layout = Layout::new(spec)?;
        let fits = (parameters.iter().zip(&layout.slots))
            .all(|((n, t), slot)| n == slot.name() && t.size() == as_i64(&slot.shape));
        if !fits || parameters.len() != layout.slots.len() {
            return Err(ModelError::OtherNetwork(
                "names or shapes of the parameters are not those of the network".to_owned(),
            ));
        }
        parameters.require_gradients(true)?;
        Ok(Self {
            trunk: Trunk::new(spec, &layout)?,
            streams: Heads::streams(spec, &layout),
            spec: spec.clone(),
            parameters,
            compute: Compute::default(),
        })
    }

    pub(crate) fn trunk(&self) -> (&Trunk, Compute) {
        (&self.trunk, self.compute)
    }

    #[must_use]
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// The parameters, named, in their fixed order.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Handles to the trainable tensors in their fixed order, for an optimizer
    /// that writes to them in place.
    #[must_use]
    pub fn trainable(&self) -> Vec<Tensor> {
        self.parameters.tensors()
    }

    /// The device of the parameters.
    #[must_use]
    pub fn device(&self) -> Device {
        self.parameters.device()
    }

    /// Sets how the trunk computes; initially f32 in the usual memory order.
    pub fn set_compute(&mut self, compute: Compute) {
        self.compute = compute;
    }

    /// The kind of windows that need no conversion.
    #[must_use]
    pub fn window_kind(&self) -> Kind {
        self.compute.kind(&self.parameters)
    }

    /// Copies all values of another network into this one (to update the target
    /// network); no gradient is recorded.
    ///
    /// # Errors
    /// [`ModelError::OtherNetwork`] names the difference; then nothing is copied.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        let differences = self.spec.differences(&other.spec);
        if !differences.is_empty() {
            return Err(ModelError::OtherNetwork(differences.join(", ")));
        }
        self.parameters.copy_from(&other.parameters)
    }

    /// A second handle to the same values, for another thread: a change in one changes
    /// the other, so neither may be changed while both are in use.
    ///
    /// # Errors
    /// libtorch's.
    pub fn share(&self) -> Result<Self> {
        self.with(self.parameters.share())
    }

    /// A copy of the network on a device that shares no storage with this one.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn deep_clone(&self, device: Device) -> Result<Self> {
        self.with(self.parameters.deep_clone(device)?)
    }

    /// A copy of the network that computes in f64 and shares no storage with this
    /// one. Rounding in f64 is far too small to change a pooling tie or an
    /// activation's sign, as the order of sums in f32 can: tests compare
    /// implementations in f64.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn to_f64(&self) -> Result<Self> {
        self.with(self.parameters.to_f64()?)
    }

    fn with(&self, parameters: Parameters) -> Result<Self> {
        let mut other = Self::from_parameters(&self.spec, parameters)?;
        other.compute = self.compute;
        Ok(other)
    }

    /// Q-values `[B, actions]` of rows of one agent each.
    ///
    /// `windows`: f32 `[B, H, n, n, n]` in 0..1. `plan`: the agent of each row.
    /// `scale`: i64 `[B]`, the index of each row's scale; required if the network takes
    /// scales and ignored otherwise. With a plan of [`HeadPlan::several`] the result is
    /// `[A, largest group, actions]`.
    ///
    /// # Errors
    /// [`ModelError::Input`] for wrong shapes, and for a `commnet`, which needs
    /// all agents of a group.
    pub fn forward_rows(
        &self,
        windows: &Tensor,
        plan: &HeadPlan,
        scale: Option<&Tensor>,
    ) -> Result<Tensor> {
        if self.spec.kind == NetworkKind::Commnet {
            let expected = "groups of all agents (commnet)";
            return Err(input("rows", expected, "single rows"));
        }
        if plan.agents() != self.spec.agents {
            let expected = format!("{} agents", self.spec.agents);
            return Err(input("head plan", expected, plan.agents().to_string()));
        }
        self.check_windows(windows, &as_i64(&[plan.samples()]))?;
        self.rows_of(&self.convolve(windows)?, plan, scale)
    }

    /// The trunk's features `[B, F]` of windows `[B, H, n, n, n]`.
    fn convolve(&self, windows: &Tensor) -> Result<Tensor> {
        let p = &self.parameters;
        if p.kind() == Kind::Double {
            let windows = windows.f_to_kind(Kind::Double)?;
            return self.trunk.forward(p, &windows, self.compute);
        }
        self.trunk.forward(p, windows, self.compute)
    }

    /// Q-values `[B, actions]` of the trunk's features.
    pub(crate) fn rows_of(
        &self,
        features: &Tensor,
        plan: &HeadPlan,
        scale: Option<&Tensor>,
    ) -> Result<Tensor> {
        let features = self.with_scale(features, scale, &as_i64(&[plan.samples()]))?;
        plan.collect(&self.q_values(&plan.spread(&features)?)?)
    }

    /// Q-values `[B, A, actions]` of groups of all agents.
    ///
    /// `windows`: f32 `[B, A, H, n, n, n]` in 0..1. `scale`: i64 `[B, A]`, as
    /// in [`Network::forward_rows`].
    ///
    /// # Errors
    /// [`ModelError::Input`] for wrong shapes.
    pub fn forward_groups(&self, windows: &Tensor, scale: Option<&Tensor>) -> Result<Tensor> {
        let batch = [
            windows.size().first().copied().unwrap_or(0),
            as_i64(&[self.spec.agents])[0],
        ];
        self.check_windows(windows, &batch)?;
        self.groups_of(&self.convolve(&windows.f_flatten(0, 1)?)?, scale, batch)
    }

    /// Q-values `[B, A, actions]` of the trunk's features `[B · A, F]`; `batch`: B, A.
    pub(crate) fn groups_of(
        &self,
        features: &Tensor,
        scale: Option<&Tensor>,
        batch: [i64; 2],
    ) -> Result<Tensor> {
        let features = self.with_scale(features, scale, &batch)?;
        let width = features.size()[1];
        let per_agent = features
            .f_reshape([batch[0], batch[1], width])?
            .f_transpose(0, 1)?;
        Ok(self.q_values(&per_agent)?.f_transpose(0, 1)?)
    }

    /// Features `[B, F]` with the one-hot scale appended.
    fn with_scale(
        &self,
        features: &Tensor,
        scale: Option<&Tensor>,
        batch: &[i64],
    ) -> Result<Tensor> {
        let Some(scales) = self.spec.scales else {
            return Ok(features.shallow_clone());
        };
        let expected = || format!("an index per row, 0..{scales}");
        let scale = scale.ok_or_else(|| input("scale", expected(), "none"))?;
        if scale.size() != batch || scale.f_kind()? != Kind::Int64 {
            return Err(input("scale", format!("Int64 {batch:?}"), shape_of(scale)));
        }
        let one_hot = scale.f_flatten(0, -1)?.f_one_hot(as_i64(&[scales])[0])?;
        let one_hot = one_hot
            .f_to_device(features.device())?
            .f_to_kind(features.kind())?;
        Ok(Tensor::f_cat(&[features, &one_hot], -1)?)
    }

    /// Features `[A, N, F]` → Q-values `[A, N, actions]`. Dueling streams are
    /// combined as `Q = V + A − mean(A)` (Wang et al. 2016, eq. 9).
    fn q_values(&self, features: &Tensor) -> Result<Tensor> {
        let outputs = self.streams.iter();
        let outputs = outputs.map(|s| s.forward(&self.parameters, features));
        let mut outputs = outputs.collect::<Result<Vec<_>>>()?;
        match (outputs.pop(), outputs.pop()) {
            (Some(value), Some(advantage)) => {
                let mean = advantage.f_mean_dim([-1_i64].as_slice(), true, features.kind())?;
                Ok(advantage.f_sub(&mean)?.f_add(&value)?)
            }
            (Some(q), None) => Ok(q),
            (None, _) => Err(ModelError::Spec("no layer outputs Q-values".to_owned())),
        }
    }

    pub(crate) fn check_windows(&self, windows: &Tensor, batch: &[i64]) -> Result<()> {
        let n = self.spec.window;
        let mut expected = batch.to_vec();
        expected.extend(as_i64(&[self.spec.history, n, n, n]));
        let kind = windows.f_kind()?;
        if windows.size() == expected && (kind == Kind::Float || kind == self.window_kind()) {
            return Ok(());
        }
        let expected = format!("{:?} {expected:?}", self.window_kind());
        Err(input("windows", expected, shape_of(windows)))
    }
}

/// The error of a wrong argument.
pub(crate) fn input(
    what: &'static str,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> ModelError {
    ModelError::Input {
        what,
        expected: expected.into(),
        found: found.into(),
    }
}

fn shape_of(tensor: &Tensor) -> String {
    let kind = tensor.f_kind().map(|kind| format!("{kind:?}"));
    let kind = kind.unwrap_or_else(|_| "unknown kind".to_owned());
    format!("{kind} {:?}", tensor.size())
}
