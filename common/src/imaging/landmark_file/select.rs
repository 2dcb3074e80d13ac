//! Selects points of a file by landmark id.

use super::{LandmarkError, LandmarkFile, Point};
use crate::config::edit_distance;
use crate::imaging::delimited::encoding::composed;

/// What of a point an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedBy {
    Name,
    Description,
    /// Its number in the file, from 0.
    Index,
}

/// A selected landmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selected<'a> {
    /// Its number in the file, from 0.
    pub index: usize,
    pub point: &'a Point,
    pub by: MatchedBy,
}

impl<'a> Selected<'a> {
    /// The landmark's name: its description if that was the id; `None` in formats
    /// without names.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        match self.by {
            MatchedBy::Description => self.point.description.as_deref(),
            MatchedBy::Name | MatchedBy::Index => self.point.name.as_deref(),
        }
    }
}

impl LandmarkFile {
    /// The points with these ids, in their order.
    ///
    /// An id is a name, a description that only one point has, or a number counted
    /// from 0; a name that looks like a number is taken as the name. An id that the
    /// file does not have is an error; numbers never wrap around.
    pub fn select(&self, ids: &[String]) -> Result<Vec<Selected<'_>>, LandmarkError> {
        ids.iter().map(|id| self.find(id)).collect()
    }

    /// One id per point for [`LandmarkFile::select`]: its name if it has one.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let ids = self.points.iter().enumerate();
        ids.map(|(index, point)| point.name.clone().unwrap_or_else(|| index.to_string()))
            .collect()
    }

    /// The point with one id; see [`LandmarkFile::select`].
    pub fn find(&self, id: &str) -> Result<Selected<'_>, LandmarkError> {
        let wanted = composed(id.trim());
        let number = wanted.parse::<usize>();
        let named = self
            .points
            .iter()
            .position(|p| p.name.as_deref() == Some(&*wanted));
        let described = || match self.described(&wanted).as_slice() {
            [one] if number.is_err() => Some(*one),
            _ => None,
        };
        let numbered = || {
            number
                .as_ref()
                .ok()
                .copied()
                .filter(|&n| n < self.points.len())
        };
        let by_name = named.map(|index| (index, MatchedBy::Name));
        let found = by_name
            .or_else(|| described().map(|index| (index, MatchedBy::Description)))
            .or_else(|| numbered().map(|index| (index, MatchedBy::Index)));
        let Some((index, by)) = found else {
            return Err(LandmarkError::UnknownId {
                path: self.path.clone(),
                id: id.to_owned(),
                valid: self.valid_ids(),
                suggestion: self.suggestion(&wanted),
            });
        };
        Ok(Selected {
            index,
            point: &self.points[index],
            by,
        })
    }

    /// The points with this description.
    fn described(&self, text: &str) -> Vec<usize> {
        let points = self.points.iter().enumerate();
        points
            .filter(|(_, point)| point.description.as_deref() == Some(text))
            .map(|(index, _)| index)
            .collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.points.iter().filter_map(|p| p.name.as_deref())
    }

    /// The descriptions, where the names are but numbers.
    fn descriptions(&self) -> impl Iterator<Item = &str> {
        let numbered = self.names().all(|name| name.parse::<u64>().is_ok());
        let points = self.points.iter().filter(move |_| numbered);
        points.filter_map(|p| p.description.as_deref())
    }

    fn valid_ids(&self) -> String {
        let Some(last) = self.points.len().checked_sub(1) else {
            return "no landmarks".to_owned();
        };
        let mut valid = format!("numbers 0 to {last}");
        let names: Vec<_> = self.names().collect();
        let descriptions: Vec<_> = self.descriptions().collect();
        for (kind, list) in [("name", names), ("description", descriptions)] {
            let some = match list.len() {
                0 => continue,
                1..=12 => format!(" and {kind}s {}", list.join(", ")),
                n => format!(
                    " and {n} {kind}s: {}, …, {}",
                    list[..6].join(", "),
                    list[n - 1]
                ),
            };
            valid += &some;
        }
        valid
    }

    fn suggestion(&self, id: &str) -> String {
        let described = self.described(id).len();
        if described > 1 {
            return format!("; {described} points have this description, so give a name");
        }
        let wanted = id.to_lowercase();
        let near = self
            .names()
            .chain(self.descriptions())
            .map(|name| (edit_distance(&name.to_lowercase(), &wanted), name))
            .filter(|(distance, name)| *distance <= 2 && *distance < name.chars().count())
            .min_by_key(|(distance, _)| *distance);
        match near {
            Some((_, name)) => format!("; did you mean '{name}'?"),
            None if self.names().next().is_some() && id.parse::<i64>().is_err() => {
                "; where a scan lacks a landmark, list it without a position".to_owned()
            }
            None => String::new(),
        }
    }
}
