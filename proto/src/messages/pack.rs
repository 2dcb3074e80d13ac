//! Lists of numbers as little-endian bytes, and other shared conversions.

use crate::error::ProtocolError;
use bytes::Bytes;

/// A number with a fixed little-endian form.
pub(crate) trait Number: Copy {
    const WIDTH: usize;
    fn put(self, out: &mut Vec<u8>);
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            const WIDTH: usize = size_of::<$kind>();
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let mut fixed = [0; size_of::<$kind>()];
                fixed.copy_from_slice(bytes);
                Self::from_le_bytes(fixed)
            }
        }
    )*};
}
number!(u32, f32, f64);

pub(crate) fn pack<T: Number>(values: impl IntoIterator<Item = T>) -> Bytes {
    let mut out = Vec::new();
    values.into_iter().for_each(|value| value.put(&mut out));
    out.into()
}

/// Exactly `count` numbers.
pub(crate) fn unpack<T: Number>(
    field: &'static str,
    bytes: &[u8],
    count: usize,
) -> Result<Vec<T>, ProtocolError> {
    if bytes.len() != count.saturating_mul(T::WIDTH) {
        let why = format!(
            "{count} values of {} bytes are needed, got {} bytes",
            T::WIDTH,
            bytes.len()
        );
        return Err(ProtocolError::invalid(field, why));
    }
    Ok(bytes.chunks_exact(T::WIDTH).map(T::get).collect())
}

/// |TD error| of `count` rows: finite, not negative.
pub(crate) fn unpack_priorities(bytes: &[u8], count: usize) -> Result<Vec<f32>, ProtocolError> {
    let priorities = unpack::<f32>("priorities", bytes, count)?;
    match priorities.iter().position(|p| !p.is_finite() || *p < 0.0) {
        None => Ok(priorities),
        Some(row) => {
            let why = format!(
                "row {row} has {}, a finite number not below zero is needed",
                priorities[row]
            );
            Err(ProtocolError::invalid("priorities", why))
        }
    }
}

/// A SHA-256.
pub(crate) fn digest(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], ProtocolError> {
    bytes.try_into().map_err(|_| {
        ProtocolError::invalid(field, format!("32 bytes are needed, got {}", bytes.len()))
    })
}

/// A number that is sent in a wider type than it has here.
pub(crate) fn narrow<T: TryFrom<u32>>(field: &'static str, value: u32) -> Result<T, ProtocolError> {
    T::try_from(value).map_err(|_| ProtocolError::invalid(field, format!("{value} is too large")))
}

/// A measurement, which must be finite and not negative.
pub(crate) fn measure(field: &'static str, value: f64) -> Result<f64, ProtocolError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(ProtocolError::invalid(
        field,
        format!("{value} is not a finite number of at least zero"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_read_back(values in prop::collection::vec(any::<u32>(), 0..20)) {
            prop_assert_eq!(unpack::<u32>("x", &pack(values.clone()), values.len()).unwrap(), values);
        }
    }

    #[test]
    fn lying_lists_are_refused_by_name() {
        assert_eq!(pack([1.5_f32]).as_ref(), &[0, 0, 0xc0, 0x3f]);
        let error = |values: &[f32], count| {
            unpack_priorities(&pack(values.iter().copied()), count)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(&[1.0], 2),
            "message field priorities is invalid: 2 values of 4 bytes are needed, got 4 bytes"
        );
        assert!(error(&[1.0, f32::NAN], 2).contains("row 1 has NaN"));
        assert!(error(&[-1.0], 1).contains("row 0 has -1"));
        assert!(error(&[f32::INFINITY], 1).contains("row 0 has inf"));
        assert!(unpack::<f64>("x", &[], usize::MAX).is_err());
    }
}
