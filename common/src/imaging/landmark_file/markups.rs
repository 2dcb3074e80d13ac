//! 3D Slicer's `.mrk.json`: every control point of every markup.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::numbers::Numbers;
use super::points::{self, Labels, MAX_POINTS, Points, Status, not_landmarks, shortened};
use super::{LandmarkError, Place, Space};

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
    coordinate_system: Option<Word>,
    /// `"mm"`, or a coded term whose first part is the unit.
    #[serde(borrow)]
    coordinate_units: Option<&'a RawValue>,
    #[serde(borrow)]
    control_points: Option<Bounded<ControlPoint<'a>, MAX_POINTS>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ControlPoint<'a> {
    label: Option<Word>,
    description: Option<Word>,
    /// Three numbers; an undefined point may have any value instead.
    #[serde(borrow)]
    position: Option<&'a RawValue>,
    #[serde(default)]
    position_status: Status,
}

/// Text; other programs than 3D Slicer write numbers for some texts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected text or a number")]
enum Word {
    Text(String),
    Number(serde_json::Number),
}

impl Word {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.to_string().into(),
        }
    }
}

/// The points of a markups file: LPS mm unless a markup declares RAS.
pub(super) fn points<'a>(text: &str, path: &'a Path) -> Result<Points<'a>, LandmarkError> {
    let mut points = Points::new(path);
    let text = with_nan_as_text(text);
    let document: Document<'_> = serde_json::from_str(&text).map_err(|error| {
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
            let status = point.position_status;
            let position = match (position(point.position), status) {
                (Err(problem), Status::Defined) => {
                    return Err(points.bad(at(index), problem));
                }
                (position, _) => position.unwrap_or([f64::NAN; 3]),
            };
            let [label, description] =
                [&point.label, &point.description].map(|word| word.as_ref().map(Word::text));
            let labels = Labels {
                name: label.as_deref(),
                description: description.as_deref(),
            };
            points.push_control_point(labels, (status, position), false, space, at(index))?;
        }
    }
    Ok(points)
}

/// Python writes `NaN` and `Infinity`, which JSON does not have. Here they become text.
fn with_nan_as_text(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    if !WORDS.iter().any(|word| text.contains(word)) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 64);
    let mut rest = text;
    let (mut in_text, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS
            .iter()
            .find(|word| !in_text && rest.starts_with(**word));
        if let Some(word) = word {
            plain.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        in_text ^= c == '"' && !escaped;
        escaped = in_text && c == '\\' && !escaped;
        plain.push(c);
        rest = &rest[c.len_utf8()..];
    }
    plain.into()
}

fn space_of(markup: &Markup<'_>) -> Result<Space, String> {
    if let Some(units) = markup.coordinate_units {
        let unit = unit(units).unwrap_or_else(|| units.get().to_owned());
        if unit != "mm" {
            let unit = shortened(&unit);
            return Err(format!("positions are in '{unit}'; save them in mm"));
        }
    }
    match &markup.coordinate_system {
        None => Ok(Space::LpsMm),
        Some(word) => points::space_of(&word.text()),
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

/// Three numbers, also as text; `null` and NaN are missing ones.
fn position(position: Option<&RawValue>) -> Result<[f64; 3], String> {
    let parsed = position.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let words: [Option<Word>; 3] =
        parsed.ok_or("a defined point needs a position of three numbers")?;
    let mut numbers = Numbers::between(b',');
    let mut value = |word: &Option<Word>| match word {
        None => Ok(f64::NAN),
        Some(Word::Number(number)) => Ok(number.as_f64().unwrap_or(f64::NAN)),
        Some(Word::Text(text)) => numbers.read(text),
    };
    let [x, y, z] = &words;
    Ok([value(x)?, value(y)?, value(z)?])
}

fn unit(units: &RawValue) -> Option<String> {
    let units = units.get();
    let first = |Bounded(term): Bounded<String, 8>| term.into_iter().next();
    serde_json::from_str(units)
        .ok()
        .or_else(|| first(serde_json::from_str(units).ok()?))
}
