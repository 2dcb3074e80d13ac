//! 3D Slicer's `.mrk.json`: every control point of every markup.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::points::{MAX_POINTS, Points, not_landmarks, shortened};
use super::{LandmarkError, Place, Point, Space};

const MAX_MARKUPS: usize = 64;

/// The fields that are read; serde skips the rest.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    markups: Option<Bounded<Markup<'a>, MAX_MARKUPS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Markup<'a> {
    coordinate_system: Option<String>,
    /// `"mm"`, or a coded term whose first part is the unit.
    #[serde(borrow)]
    coordinate_units: Option<&'a RawValue>,
    #[serde(borrow)]
    control_points: Option<Bounded<ControlPoint<'a>, MAX_POINTS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ControlPoint<'a> {
    label: Option<String>,
    /// Three numbers; an undefined point may have any value instead.
    #[serde(borrow)]
    position: Option<&'a RawValue>,
    #[serde(default)]
    position_status: Status,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// In a list of points to be placed, not placed yet.
    Undefined,
    /// Follows the mouse pointer.
    Preview,
    /// Marked as missing.
    Missing,
    #[default]
    Defined,
}

/// The points of a markups file: LPS mm unless a markup declares RAS.
pub(super) fn points(text: &str, path: &Path) -> Result<Vec<Point>, LandmarkError> {
    let mut points = Points::new(path);
    let document: Document<'_> = serde_json::from_str(text).map_err(|error| {
        let problem = format!("not a markups file: {}", shortened(&error.to_string()));
        points.bad(Place::Line(error.line() as u64), problem)
    })?;
    let Some(Bounded(markups)) = document.markups else {
        return Err(not_landmarks(path, "JSON without a list of 'markups'"));
    };
    for (markup, number) in markups.into_iter().zip(1..) {
        let at = |point| Place::ControlPoint(number, point);
        let space = space_of(&markup).map_err(|problem| points.bad(at(1), problem))?;
        let control_points = markup.control_points.map(|list| list.0);
        for (point, index) in control_points.unwrap_or_default().into_iter().zip(1..) {
            let position = match point.position_status {
                Status::Undefined | Status::Preview | Status::Missing => [f64::NAN; 3],
                Status::Defined => three_numbers(point.position).ok_or_else(|| {
                    let problem = "a defined point needs a position of three numbers";
                    points.bad(at(index), problem.to_owned())
                })?,
            };
            points.push(point.label.as_deref(), position, space, at(index))?;
        }
    }
    Ok(points.into_vec())
}

fn space_of(markup: &Markup<'_>) -> Result<Space, String> {
    if let Some(units) = markup.coordinate_units {
        let unit = unit(units).unwrap_or_else(|| units.get().to_owned());
        if unit != "mm" {
            let unit = shortened(&unit);
            return Err(format!("positions are in '{unit}'; save them in mm"));
        }
    }
    match markup.coordinate_system.as_deref() {
        None | Some("LPS") => Ok(Space::LpsMm),
        Some("RAS") => Ok(Space::RasMm),
        Some(other) => {
            let other = shortened(other);
            Err(format!(
                "coordinate system '{other}' is neither LPS nor RAS"
            ))
        }
    }
}

/// A list whose reading stops beyond a plausible length.
struct Bounded<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = list.next_element()? {
                    if all.len() == MAX {
                        return Err(A::Error::custom(format!("a list of more than {MAX}")));
                    }
                    all.push(item);
                }
                Ok(Bounded(all))
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

fn three_numbers(position: Option<&RawValue>) -> Option<[f64; 3]> {
    serde_json::from_str(position?.get()).ok()
}

fn unit(units: &RawValue) -> Option<String> {
    let units = units.get();
    let first = |Bounded(term): Bounded<String, 8>| term.into_iter().next();
    serde_json::from_str(units)
        .ok()
        .or_else(|| first(serde_json::from_str(units).ok()?))
}
