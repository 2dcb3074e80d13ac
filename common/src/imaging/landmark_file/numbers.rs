//! Numbers as people and programs write them.

use super::points::shortened;

/// What stands for a missing number, in lower case: as pandas, R, BIDS and Excel write it.
const MISSING: [&str; 7] = ["n/a", "na", "<na>", "#n/a", "#na", "null", "none"];

/// Parses the numbers of one file, which have one decimal sign.
pub(super) struct Numbers {
    /// Whether a comma may be the decimal sign: where it does not separate fields.
    commas: bool,
    seen: Option<char>,
}

impl Numbers {
    /// Of a file whose fields end at `delimiter`.
    pub(super) fn between(delimiter: u8) -> Self {
        Self {
            commas: delimiter != b',',
            seen: None,
        }
    }

    /// Parses a number; NaN where the field says that it is missing.
    pub(super) fn read(&mut self, field: &str) -> Result<f64, String> {
        let field = field.trim();
        if field.is_empty() || MISSING.contains(&field.to_ascii_lowercase().as_str()) {
            return Ok(f64::NAN);
        }
        let (value, sign) = match field.parse() {
            Ok(value) => (value, field.contains('.').then_some('.')),
            Err(_) => (self.with_comma(field)?, Some(',')),
        };
        match (self.seen, sign) {
            (Some(seen), Some(sign)) if seen != sign => Err(format!(
                "'{}' has a decimal {}, but numbers before have a decimal {}; use one of the two \
                 in the whole file",
                shortened(field),
                named(sign),
                named(seen)
            )),
            _ => {
                self.seen = self.seen.or(sign);
                Ok(value)
            }
        }
    }

    /// Parses a number with a decimal comma.
    fn with_comma(&self, field: &str) -> Result<f64, String> {
        let value = field.replacen(',', ".", 1).parse();
        match value {
            Ok(value) if self.commas && !field.contains('.') => Ok(value),
            _ => Err(format!(
                "'{}' is not a number{}",
                shortened(field),
                hint(field)
            )),
        }
    }
}

fn named(sign: char) -> &'static str {
    match sign {
        ',' => "comma",
        _ => "point",
    }
}

/// What is wrong with a number, and what to do.
fn hint(field: &str) -> String {
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    if let Some(odd) = field.chars().find(|c| !c.is_ascii()) {
        let code = u32::from(odd);
        return format!(
            ": '{odd}' (U+{code:04X}) is none of the plain digits, signs and points of ASCII; \
             type it anew"
        );
    }
    let without_unit = field.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let separators = [',', '\'', ' ', '_'];
    if field.matches(',').count() == 1 && is_number(&field.replace(',', ".")) {
        "; write a decimal point, not a comma".to_owned()
    } else if is_number(&field.replace(separators, ""))
        || is_number(&field.replace('.', "").replace(',', "."))
    {
        "; write it without separators of thousands, with a decimal point".to_owned()
    } else if is_number(without_unit) {
        "; write it without a unit".to_owned()
    } else if field == "-" || field.bytes().all(|b| b.is_ascii_alphabetic()) {
        "; where a landmark is missing, leave its cells empty or write n/a".to_owned()
    } else {
        String::new()
    }
}
