//! What the conversions of all messages share: checks of single fields, and lists of numbers as
//! little-endian bytes.

use crate::error::ProtocolError;
use bytes::Bytes;
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

/// Implements the conversion of a message into its wire form, and the checked conversion back.
/// The fields in `same` need neither conversion nor check.
macro_rules! wire_form {
    ($message:ident, $wire:ident, same: [$($same:ident),*],
     $m:ident => { $($wire_field:ident: $value:expr),* $(,)? },
     $w:ident => { $($field:ident: $checked:expr),* $(,)? } $(,)?) => {
        impl From<$message> for crate::wire::$wire {
            fn from($m: $message) -> Self {
                Self { $($wire_field: $value,)* $($same: $m.$same,)* }
            }
        }

        impl TryFrom<crate::wire::$wire> for $message {
            type Error = crate::error::ProtocolError;

            fn try_from($w: crate::wire::$wire) -> Result<Self, Self::Error> {
                Ok(Self { $($field: $checked,)* $($same: $w.$same,)* })
            }
        }
    };
}
pub(crate) use wire_form;

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
    let (width, found) = (T::WIDTH, bytes.len());
    if found != count.saturating_mul(width) {
        let why = format!("{count} values of {width} bytes are needed, got {found} bytes");
        return Err(ProtocolError::invalid(field, why));
    }
    Ok(bytes.chunks_exact(width).map(T::get).collect())
}

/// Refuses a list with a value that is not as `needed`.
pub(crate) fn each<T: Copy + Display>(
    field: &'static str,
    item: &str,
    values: Vec<T>,
    needed: &str,
    valid: impl Fn(T) -> bool,
) -> Result<Vec<T>, ProtocolError> {
    match values.iter().position(|value| !valid(*value)) {
        None => Ok(values),
        Some(i) => {
            let why = format!("{item} {i} has {}, {needed} is needed", values[i]);
            Err(ProtocolError::invalid(field, why))
        }
    }
}

/// |TD error| of `count` rows: finite, not negative.
pub(crate) fn unpack_priorities(bytes: &[u8], count: usize) -> Result<Vec<f32>, ProtocolError> {
    let priorities = unpack::<f32>("priorities", bytes, count)?;
    let needed = "a finite number not below zero";
    each("priorities", "row", priorities, needed, |p| {
        p.is_finite() && p >= 0.0
    })
}

/// A field that must be present.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ProtocolError> {
    value.ok_or(ProtocolError::Missing(field))
}

/// A text that must not be empty.
pub(crate) fn text(field: &'static str, text: String) -> Result<String, ProtocolError> {
    required(field, Some(text).filter(|text| !text.is_empty()))
}

/// A name of a host and process, for people, of at most this many bytes.
pub(crate) const HOST_BYTES_MAX: usize = 256;

/// The name of a host and process, which logs and status show.
pub(crate) fn host(host: String) -> Result<String, ProtocolError> {
    within("host", host.len(), "bytes", 0..=HOST_BYTES_MAX)?;
    if host.chars().any(char::is_control) {
        let why = "it has control characters".to_owned();
        return Err(ProtocolError::invalid("host", why));
    }
    Ok(host)
}

/// Bytes up to a limit.
pub(crate) fn at_most(
    field: &'static str,
    bytes: Bytes,
    most: usize,
) -> Result<Bytes, ProtocolError> {
    within(field, bytes.len(), "bytes", 0..=most)?;
    Ok(bytes)
}

/// A number of things within these bounds.
pub(crate) fn within<T: PartialOrd + Display + Debug>(
    field: &'static str,
    count: T,
    things: &str,
    bounds: RangeInclusive<T>,
) -> Result<T, ProtocolError> {
    if bounds.contains(&count) {
        return Ok(count);
    }
    let why = format!("{count} {things}, allowed are {bounds:?}");
    Err(ProtocolError::invalid(field, why))
}

/// A SHA-256.
pub(crate) fn digest(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], ProtocolError> {
    let invalid = |_| {
        let why = format!("32 bytes are needed, got {}", bytes.len());
        ProtocolError::invalid(field, why)
    };
    bytes.try_into().map_err(invalid)
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
    let why = format!("{value} is not a finite number of at least zero");
    Err(ProtocolError::invalid(field, why))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The wire form of a message converts back into the same message.
    pub(crate) fn reads_back<W, M>(message: M)
    where
        W: From<M>,
        M: TryFrom<W, Error = ProtocolError> + Clone + PartialEq + Debug,
    {
        assert_eq!(M::try_from(W::from(message.clone())), Ok(message));
    }

    /// A change of a wire form, and a text that its refusal contains.
    pub(crate) type Refused<'a, W> = (fn(&mut W), &'a str);

    /// A valid wire form is accepted, and each change to it is refused with an error that
    /// contains the text.
    pub(crate) fn refuses<M, W>(valid: &W, changes: &[Refused<'_, W>])
    where
        W: Clone,
        M: TryFrom<W, Error = ProtocolError> + Debug,
    {
        M::try_from(valid.clone()).unwrap();
        for (change, text) in changes {
            let mut message = valid.clone();
            change(&mut message);
            let error = M::try_from(message).unwrap_err().to_string();
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back(values in prop::collection::vec(any::<u32>(), 0..20)) {
            prop_assert_eq!(unpack::<u32>("x", &pack(values.clone()), values.len()).unwrap(), values);
        }
    }

    #[test]
    fn invalid_lists_are_refused_with_the_field_and_the_row() {
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
