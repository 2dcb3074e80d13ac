//! A batch of rows as it travels: one column per field, little-endian.
//!
//! Neighbouring values of one field are alike, columns compress well and decode
//! without a message per row. First a version byte, then each field's values of
//! all rows, in the order of [`RowShape::fields`].

use crate::transition::row::{ROW_VERSION, Row, RowError, RowShape};

/// Rows that are turned before the next ones: so few that they and their part of
/// the columns stay in the first cache level while field after field is copied.
const BLOCK_ROWS: usize = 128;

/// Bytes that are not a batch of rows.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ColumnsError {
    /// Written by another version of landmarl.
    #[error(
        "rows of layout version {found}, this build reads {ROW_VERSION}: use one landmarl version everywhere"
    )]
    Version {
        /// The version byte found.
        found: u8,
    },
    /// The number of bytes does not fit the number of rows.
    #[error(
        "{rows} rows of {row_bytes} bytes need {expected} bytes with the version byte, got {found}"
    )]
    Length {
        /// Rows announced.
        rows: usize,
        /// Bytes of one row.
        row_bytes: usize,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// One of the rows is not a row.
    #[error(transparent)]
    Row(#[from] RowError),
}

/// Packed rows (each `shape.bytes()` long, one after another) → columns.
///
/// # Panics
/// When `packed` is not a whole number of rows: it comes from our own table.
#[must_use]
pub fn to_columns(packed: &[u8], shape: RowShape) -> Vec<u8> {
    let size = shape.bytes();
    assert_eq!(packed.len() % size, 0, "packed rows are whole rows");
    let mut out = vec![0; packed.len() + 1];
    out[0] = ROW_VERSION;
    let (fields, rows) = (shape.fields(), packed.len() / size);
    for (block, packed) in packed.chunks(BLOCK_ROWS * size).enumerate() {
        for &(offset, width) in &fields {
            let start = 1 + offset * rows + block * BLOCK_ROWS * width;
            let column = &mut out[start..][..packed.len() / size * width];
            // Each width by itself: a copy of known length is an instruction, any other a call.
            match width {
                1 => gather(packed, size, offset, 1, column),
                2 => gather(packed, size, offset, 2, column),
                4 => gather(packed, size, offset, 4, column),
                6 => gather(packed, size, offset, 6, column),
                _ => gather(packed, size, offset, width, column),
            }
        }
    }
    out
}

/// One field of some rows → their part of its column.
#[inline(always)]
fn gather(packed: &[u8], size: usize, offset: usize, width: usize, column: &mut [u8]) {
    for (value, row) in column
        .chunks_exact_mut(width)
        .zip(packed.chunks_exact(size))
    {
        value.copy_from_slice(&row[offset..offset + width]);
    }
}

/// [`gather`] backwards.
#[inline(always)]
fn scatter(packed: &mut [u8], size: usize, offset: usize, width: usize, column: &[u8]) {
    for (value, row) in column
        .chunks_exact(width)
        .zip(packed.chunks_exact_mut(size))
    {
        row[offset..offset + width].copy_from_slice(value);
    }
}

/// Columns → packed rows; checks version and length, not the fields
/// ([`Row::read`] does).
pub fn from_columns(columns: &[u8], rows: usize, shape: RowShape) -> Result<Vec<u8>, ColumnsError> {
    let size = shape.bytes();
    let expected = rows.saturating_mul(size).saturating_add(1);
    match columns.first() {
        Some(&found) if found != ROW_VERSION => return Err(ColumnsError::Version { found }),
        Some(_) if columns.len() == expected => {}
        _ => {
            return Err(ColumnsError::Length {
                rows,
                row_bytes: size,
                expected,
                found: columns.len(),
            });
        }
    }
    let mut packed = vec![0; rows * size];
    let fields = shape.fields();
    for (block, packed) in packed.chunks_mut(BLOCK_ROWS * size).enumerate() {
        for &(offset, width) in &fields {
            let start = 1 + offset * rows + block * BLOCK_ROWS * width;
            let column = &columns[start..][..packed.len() / size * width];
            match width {
                1 => scatter(packed, size, offset, 1, column),
                2 => scatter(packed, size, offset, 2, column),
                4 => scatter(packed, size, offset, 4, column),
                6 => scatter(packed, size, offset, 6, column),
                _ => scatter(packed, size, offset, width, column),
            }
        }
    }
    Ok(packed)
}

/// Columns → rows, every field checked.
pub fn read_rows(columns: &[u8], rows: usize, shape: RowShape) -> Result<Vec<Row>, ColumnsError> {
    from_columns(columns, rows, shape)?
        .chunks_exact(shape.bytes())
        .map(|bytes| Row::read(bytes, shape).map_err(ColumnsError::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::row::tests::{any_row, any_shape};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn columns_read_back(
            (rows, shape) in any_shape().prop_flat_map(|s| (prop::collection::vec(any_row(s), 0..9), Just(s)))
        ) {
            let mut packed = Vec::new();
            rows.iter().for_each(|r| r.write_to(&mut packed));
            let columns = to_columns(&packed, shape);
            prop_assert_eq!(&from_columns(&columns, rows.len(), shape).unwrap(), &packed);
            prop_assert_eq!(read_rows(&columns, rows.len(), shape).unwrap(), rows);
        }

        #[test]
        fn random_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..400), rows in 0_usize..10, shape in any_shape(),
        ) {
            let _ = read_rows(&bytes, rows, shape);
        }
    }

    #[test]
    fn batches_of_several_blocks_are_field_after_field() {
        let shape = RowShape {
            agents: 1,
            history: 2,
        };
        for rows in [
            BLOCK_ROWS - 1,
            BLOCK_ROWS,
            BLOCK_ROWS + 1,
            3 * BLOCK_ROWS + 7,
        ] {
            let packed: Vec<u8> = (0..rows * shape.bytes())
                .map(|byte| (byte * 31 % 251) as u8)
                .collect();
            let mut plain = vec![ROW_VERSION];
            for (offset, width) in shape.fields() {
                for row in packed.chunks_exact(shape.bytes()) {
                    plain.extend_from_slice(&row[offset..offset + width]);
                }
            }
            assert!(to_columns(&packed, shape) == plain, "{rows} rows");
            assert!(
                from_columns(&plain, rows, shape).unwrap() == packed,
                "{rows} rows"
            );
        }
    }

    #[test]
    fn wrong_version_and_length_are_named() {
        let shape = RowShape {
            agents: 1,
            history: 1,
        };
        let e = from_columns(&[9; 57], 1, shape).unwrap_err();
        assert_eq!(e, ColumnsError::Version { found: 9 });
        let e = from_columns(&[ROW_VERSION; 56], 1, shape)
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "1 rows of 56 bytes need 57 bytes with the version byte, got 56"
        );
        assert!(from_columns(&[ROW_VERSION], usize::MAX, shape).is_err());
        assert_eq!(
            from_columns(&[ROW_VERSION], 0, shape).unwrap(),
            Vec::<u8>::new()
        );
    }
}
