//! 3D Slicer's `.mrk.json`: every control point of every markup.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::points::{MAX_POINTS, Points, not_landmarks, shortened};
use super::{LandmarkError, Place, Point, Space};

const MAX_MARKUPS: usize = 64;

/// The fields that are read; serde skips the rest.
#[derive(Deserialize)]
struct Document {
    markups: Option<Bounded<Markup, MAX_MARKUPS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Markup {
    coordinate_system: Option<String>,
    coordinate_units: Option<Units>,
    control_points: Option<Bounded<ControlPoint, MAX_POINTS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ControlPoint {
    label: Option<String>,
    #[serde(default)]
    position: Position,
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
    let document: Document = serde_json::from_str(text).map_err(|error| {
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
            let position = match (point.position_status, point.position) {
                (Status::Undefined | Status::Preview | Status::Missing, _) => [f64::NAN; 3],
                (Status::Defined, Position::Numbers(numbers)) => numbers,
                (Status::Defined, Position::Other) => {
                    let problem = "a defined point needs a position of three numbers";
                    return Err(points.bad(at(index), problem.to_owned()));
                }
            };
            points.push(point.label.as_deref(), position, space, at(index))?;
        }
    }
    Ok(points.into_vec())
}

fn space_of(markup: &Markup) -> Result<Space, String> {
    match &markup.coordinate_units {
        None => {}
        Some(Units(unit)) if unit == "mm" => {}
        Some(Units(unit)) => {
            let unit = shortened(unit);
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

/// A position; an undefined point may have any value instead.
#[derive(Default)]
enum Position {
    Numbers([f64; 3]),
    #[default]
    Other,
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Position;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("three numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Position, A::Error> {
                let (mut numbers, mut count) = ([0.0; 3], 0);
                while let Some(Number(value)) = list.next_element()? {
                    if let (Some(slot), Some(value)) = (numbers.get_mut(count), value) {
                        *slot = value;
                        count += 1;
                    } else {
                        // Too many, or not a number: the count can no longer be three.
                        count = numbers.len() + 1;
                    }
                }
                Ok(if count == numbers.len() {
                    Position::Numbers(numbers)
                } else {
                    Position::Other
                })
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Position, E> {
                Ok(Position::Other)
            }

            fn visit_unit<E: Error>(self) -> Result<Position, E> {
                Ok(Position::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Position, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Position::Other)
            }
        }
        from.deserialize_any(Any)
    }
}

/// A coordinate, `None` when it is not a number.
struct Number(Option<f64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(Some(value)))
            }

            #[expect(clippy::cast_precision_loss, reason = "millimetres")]
            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(Some(value as f64)))
            }

            #[expect(clippy::cast_precision_loss, reason = "millimetres")]
            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(Some(value as f64)))
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Number, E> {
                Ok(Number(None))
            }

            fn visit_unit<E: Error>(self) -> Result<Number, E> {
                Ok(Number(None))
            }
        }
        from.deserialize_any(Any)
    }
}

/// `"mm"`, or a coded term whose first part is the unit.
struct Units(String);

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Units;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a unit or its code")
            }

            fn visit_str<E: Error>(self, unit: &str) -> Result<Units, E> {
                Ok(Units(unit.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Units, A::Error> {
                let unit = list.next_element()?.unwrap_or_default();
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Units(unit))
            }
        }
        from.deserialize_any(Any)
    }
}
