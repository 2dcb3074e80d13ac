//! Selects points of a file by landmark id.

use super::{LandmarkError, LandmarkFile, Point};
use crate::config::edit_distance;

/// What of a point an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchedBy {
    Name,
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
    /// The landmark's name; `None` in formats without names.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.point.name.as_deref()
    }
}

impl LandmarkFile {
    /// The points with these ids, in their order.
    ///
    /// An id is a name or a number counted from 0; a name that looks like a
    /// number is taken as the name. An id that the file does not have is an
    /// error; numbers never wrap around.
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
        let named = self
            .points
            .iter()
            .position(|p| p.name.as_deref() == Some(id));
        let number = || id.parse().ok().filter(|&n: &usize| n < self.points.len());
        let Some(index) = named.or_else(number) else {
            return Err(LandmarkError::UnknownId {
                path: self.path.clone(),
                id: id.to_owned(),
                valid: self.valid_ids(),
                suggestion: self.suggestion(id),
            });
        };
        Ok(Selected {
            index,
            point: &self.points[index],
            by: match named {
                Some(_) => MatchedBy::Name,
                None => MatchedBy::Index,
            },
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.points.iter().filter_map(|p| p.name.as_deref())
    }

    fn valid_ids(&self) -> String {
        let Some(last) = self.points.len().checked_sub(1) else {
            return "no landmarks".to_owned();
        };
        let range = format!("numbers 0 to {last}");
        let names: Vec<_> = self.names().collect();
        match names.len() {
            0 => range,
            1..=12 => format!("{range} and names {}", names.join(", ")),
            n => format!(
                "{range} and {n} names: {}, …, {}",
                names[..6].join(", "),
                names[n - 1]
            ),
        }
    }

    fn suggestion(&self, id: &str) -> String {
        let wanted = id.to_lowercase();
        let near = self
            .names()
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
