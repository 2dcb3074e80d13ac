//! The tensors of a network, by name and in a fixed order.

use tch::{Device, Kind, Tensor};

use crate::error::{ModelError, Result};

/// No trained network has a weight of this size; training that diverges passes it long before
/// its weights are infinite.
pub const WEIGHT_MAX: f64 = 1e4;

/// Named tensors in the order of [`crate::network::layout::Layout`].
///
/// Also used for values per parameter, such as the moments of an optimizer.
#[derive(Debug)]
pub struct Parameters {
    entries: Vec<(String, Tensor)>,
}

impl Parameters {
    /// Wraps tensors without a copy.
    #[must_use]
    pub fn new(entries: Vec<(String, Tensor)>) -> Self {
        Self { entries }
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, t)| (name.as_str(), t))
    }

    /// The tensors in order. They share storage with these parameters: an optimizer
    /// writes to them in place.
    #[must_use]
    pub fn tensors(&self) -> Vec<Tensor> {
        self.iter().map(|(_, t)| t.shallow_clone()).collect()
    }

    /// The tensor with an index in the order.
    ///
    /// # Panics
    /// When the index is out of range; indices come from the layout that made these.
    pub fn at(&self, place: usize) -> &Tensor {
        &self.entries[place].1
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

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

    /// A copy on a device that shares no storage with these.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn deep_clone(&self, device: Device) -> Result<Self> {
        self.map(|t| Ok(t.detach().f_to_device_(device, t.f_kind()?, false, true)?))
    }

    /// Refuses values that are NaN, or larger than `limit` in absolute value.
    ///
    /// # Errors
    /// [`ModelError::Unsound`] names the first such tensor; libtorch's errors.
    pub fn check_within(&self, limit: f64) -> Result<()> {
        let largest = self.iter().filter(|(_, t)| t.numel() > 0);
        let largest = largest.map(|(_, t)| Ok(t.detach().f_abs()?.f_max()?));
        let largest = largest.collect::<Result<Vec<_>>>()?;
        if largest.is_empty() {
            return Ok(());
        }
        // One read for all: reading a number from a GPU waits for it.
        let all = Tensor::f_stack(&largest, 0)?.f_to_kind(Kind::Double)?;
        let all = Vec::<f64>::try_from(all.f_to_device(Device::Cpu)?)?;
        let named = self.iter().filter(|(_, t)| t.numel() > 0).zip(all);
        let outside = |(_, most): &(_, f64)| most.is_nan() || *most > limit;
        match named.into_iter().find(outside) {
            Some(((name, _), most)) => Err(ModelError::Unsound {
                name: name.to_owned(),
                most,
                limit,
            }),
            None => Ok(()),
        }
    }

    /// A second handle to the same values, for another thread.
    pub(crate) fn share(&self) -> Self {
        let shared = |(name, t): (&str, &Tensor)| (name.to_owned(), t.shallow_clone());
        Self::new(self.iter().map(shared).collect())
    }

    /// Enables or disables gradients.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn require_gradients(&self, wanted: bool) -> Result<()> {
        for (_, tensor) in &self.entries {
            let _ = tensor.f_set_requires_grad(wanted)?;
        }
        Ok(())
    }

    /// Copies the values of `other` into these tensors; no gradient is recorded.
    ///
    /// # Errors
    /// [`ModelError::OtherNetwork`] if names or shapes differ; then nothing is copied.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        self.write_each(other, Tensor::f_copy_)
    }

    /// Moves these values by the fraction `share` (0..=1) towards those of `other`.
    ///
    /// # Errors
    /// [`ModelError::OtherNetwork`] if names or shapes differ; then nothing is changed.
    pub fn move_towards(&mut self, other: &Self, share: f64) -> Result<()> {
        self.write_each(other, |to, from| to.f_lerp_(from, share).map(drop))
    }

    fn write_each(
        &mut self,
        other: &Self,
        write: impl Fn(&mut Tensor, &Tensor) -> std::result::Result<(), tch::TchError>,
    ) -> Result<()> {
        self.same_shapes(other)?;
        let pairs = self.entries.iter_mut().zip(&other.entries);
        tch::no_grad(|| {
            for ((_, to), (_, from)) in pairs {
                write(to, from)?;
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
        self.entries.first().map_or(Device::Cpu, |e| e.1.device())
    }

    /// The kind of number of the first tensor.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.entries.first().map_or(Kind::Float, |e| e.1.kind())
    }

    /// Copies with f64 values.
    pub(crate) fn to_f64(&self) -> Result<Self> {
        let exact = |t: &Tensor| {
            t.detach()
                .f_to_device_(t.device(), Kind::Double, false, true)
        };
        self.map(|t| Ok(exact(t)?))
    }

    /// Whether every value is finite.
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
        let changed = |(name, t): (&str, &Tensor)| Ok((name.to_owned(), change(t)?));
        let entries = self.iter().map(changed).collect::<Result<_>>()?;
        Ok(Self { entries })
    }
}
