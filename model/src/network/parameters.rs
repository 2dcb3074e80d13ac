//! The tensors of a network, by name and in a fixed order.

use tch::{Device, Kind, Tensor};

use crate::error::{ModelError, Result};

/// Named tensors in the order of [`crate::network::layout::Layout`].
///
/// Also holds what goes along with parameters one by one, such as the moments
/// of an optimizer.
#[derive(Debug)]
pub struct Parameters {
    entries: Vec<(String, Tensor)>,
}

impl Parameters {
    /// Wraps tensors as they are.
    #[must_use]
    pub fn new(entries: Vec<(String, Tensor)>) -> Self {
        Self { entries }
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensors in order. They share storage with these: an optimizer
    /// writes to them in place.
    #[must_use]
    pub fn tensors(&self) -> Vec<Tensor> {
        self.entries
            .iter()
            .map(|(_, tensor)| tensor.shallow_clone())
            .collect()
    }

    /// The tensor at a place of the order.
    ///
    /// # Panics
    /// When there are not that many; places come from the layout that made these.
    pub fn at(&self, place: usize) -> &Tensor {
        &self.entries[place].1
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tensors of the same names and shapes, all zero, for an optimizer's moments.
    ///
    /// # Errors
    /// When libtorch has no memory.
    pub fn zeros_like(&self) -> Result<Self> {
        self.map(|tensor| Ok(tensor.detach().f_zeros_like()?))
    }

    /// A copy that shares nothing with these, on a device.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn deep_clone(&self, device: Device) -> Result<Self> {
        self.map(|tensor| {
            Ok(tensor
                .detach()
                .f_to_device_(device, tensor.f_kind()?, false, true)?)
        })
    }

    /// A second handle on the same numbers, for another thread.
    pub(crate) fn share(&self) -> Self {
        let shared = |(name, t): (&str, &Tensor)| (name.to_owned(), t.shallow_clone());
        Self::new(self.iter().map(shared).collect())
    }

    /// Says whether gradients are wanted.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn require_gradients(&self, wanted: bool) -> Result<()> {
        for (_, tensor) in &self.entries {
            let _ = tensor.f_set_requires_grad(wanted)?;
        }
        Ok(())
    }

    /// Copies the numbers of `other` into these tensors; no gradient is recorded.
    ///
    /// # Errors
    /// [`ModelError::OtherNetwork`] when names or shapes differ; then nothing is copied.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        self.same_shapes(other)?;
        tch::no_grad(|| {
            for ((_, to), (_, from)) in self.entries.iter_mut().zip(&other.entries) {
                to.f_copy_(from)?;
            }
            Ok(())
        })
    }

    /// Moves these numbers by `share` (0..=1) of the way to those of `other`.
    ///
    /// # Errors
    /// [`ModelError::OtherNetwork`] when names or shapes differ; then nothing is changed.
    pub fn move_towards(&mut self, other: &Self, share: f64) -> Result<()> {
        self.same_shapes(other)?;
        tch::no_grad(|| {
            for ((_, to), (_, from)) in self.entries.iter_mut().zip(&other.entries) {
                let _ = to.f_lerp_(from, share)?;
            }
            Ok(())
        })
    }

    fn same_shapes(&self, other: &Self) -> Result<()> {
        if self.len() != other.len() {
            return Err(ModelError::OtherNetwork(format!(
                "{} tensors here and {} there",
                self.len(),
                other.len()
            )));
        }
        for ((name, to), (other_name, from)) in self.iter().zip(other.iter()) {
            if name != other_name || to.size() != from.size() {
                return Err(ModelError::OtherNetwork(format!(
                    "{name} of shape {:?} here and {other_name} of shape {:?} there",
                    to.size(),
                    from.size()
                )));
            }
        }
        Ok(())
    }

    /// The device of the first tensor.
    #[must_use]
    pub fn device(&self) -> Device {
        self.entries
            .first()
            .map_or(Device::Cpu, |(_, tensor)| tensor.device())
    }

    /// The kind of number of the first tensor.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.entries
            .first()
            .map_or(Kind::Float, |(_, tensor)| tensor.kind())
    }

    /// The same numbers as f64, in tensors of their own.
    pub(crate) fn to_f64(&self) -> Result<Self> {
        self.map(|tensor| {
            let here = tensor.device();
            Ok(tensor
                .detach()
                .f_to_device_(here, Kind::Double, false, true)?)
        })
    }

    /// Whether every number is finite.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn all_finite(&self) -> Result<bool> {
        for (_, tensor) in &self.entries {
            let finite = tensor.f_isfinite()?.f_all()?.f_to_kind(Kind::Int64)?;
            if finite.f_int64_value(&[])? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let entries = self
            .entries
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), change(tensor)?)))
            .collect::<Result<_>>()?;
        Ok(Self { entries })
    }
}
