//! What both sides print: lines of JSON among whatever libraries say.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

/// Who computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Landmarl,
    Pytorch,
}

/// In which numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Bf16,
}

impl Precision {
    /// As options and results spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Some updates of one side.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Run {
    /// Who.
    pub side: Side,
    /// In which numbers.
    pub precision: Precision,
    /// Rows per update.
    pub batch: u32,
    /// The median over updates.
    pub ms_per_update: f64,
    /// Its part for windows: ours renders, theirs stacks and copies.
    #[serde(alias = "sample_ms")]
    pub render_ms: Option<f64>,
    /// Arithmetic of one update.
    pub gflop_per_update: Option<f64>,
}

/// What the machine reaches at best: large matrix products.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Ceiling {
    /// In f32, without tensor cores.
    pub f32_tflops: Option<f64>,
    /// In bf16.
    pub bf16_tflops: Option<f64>,
    /// In TF32, on a GPU.
    pub tf32_tflops: Option<f64>,
    /// Whether convolutions of f32 numbers use TF32.
    #[serde(default)]
    pub cudnn_allow_tf32: bool,
}

impl Ceiling {
    /// The one that a precision has on this machine, and its name.
    pub fn of(&self, precision: Precision) -> Option<(&'static str, f64)> {
        match precision {
            Precision::Bf16 => self.bf16_tflops.map(|t| ("bf16", t)),
            Precision::F32 if self.cudnn_allow_tf32 && self.tf32_tflops.is_some() => {
                self.tf32_tflops.map(|t| ("tf32", t))
            }
            Precision::F32 => self.f32_tflops.map(|t| ("f32", t)),
        }
    }
}

/// One line that counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    Run(Run),
    Ceiling(Ceiling),
}

/// The one result among what was printed, as it stands there and as read.
pub fn find(printed: &str) -> Result<(&str, Line)> {
    let text = printed
        .lines()
        .map(str::trim)
        .rfind(|line| line.starts_with('{'))
        .context("printed no line of JSON")?;
    let value: serde_json::Value =
        serde_json::from_str(text).with_context(|| format!("printed {text}"))?;
    let line = if value["side"] == "ceiling" {
        serde_json::from_value(value).map(Line::Ceiling)
    } else {
        serde_json::from_value(value).map(Line::Run)
    };
    let line = line.with_context(|| format!("printed {text}"))?;
    if let Line::Run(run) = &line {
        let time = run.ms_per_update;
        anyhow::ensure!(
            time.is_finite() && time > 0.0,
            "no time of an update: {time}"
        );
    }
    Ok((text, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_among_chatter() {
        let ours = r#"{"side":"landmarl","device":"cpu","precision":"bf16","batch":16,"ms_per_update":900.5,"render_ms":12.0,"gflop_per_update":314.2,"new":[1]}"#;
        let theirs = r#"{"side":"pytorch","precision":"f32","batch":16,"ms_per_update":2000,"sample_ms":20.5}"#;
        let cases = [
            (
                ours,
                Side::Landmarl,
                Precision::Bf16,
                Some(12.0),
                Some(314.2),
            ),
            (theirs, Side::Pytorch, Precision::F32, Some(20.5), None),
        ];
        for (json, side, precision, render_ms, gflop_per_update) in cases {
            let printed = format!("[W] a warning\n  {json}\nbye\n");
            let (text, line) = find(&printed).unwrap();
            assert_eq!(text, json);
            let Line::Run(run) = line else {
                panic!("{json} is a run");
            };
            assert_eq!((run.side, run.precision, run.batch), (side, precision, 16));
            assert_eq!(run.render_ms, render_ms);
            assert_eq!(run.gflop_per_update, gflop_per_update);
        }
    }

    #[test]
    fn what_is_no_result_is_named() {
        for (printed, expected) in [
            ("", "printed no line of JSON"),
            ("nothing\n", "printed no line of JSON"),
            ("{\"side\": 1}", "printed {\"side\": 1}"),
            ("{broken", "printed {broken"),
            (
                r#"{"side":"landmarl","precision":"f32","batch":2,"ms_per_update":0}"#,
                "no time of an update",
            ),
        ] {
            let error = find(printed).unwrap_err().to_string();
            assert!(error.contains(expected), "{printed}: {error}");
        }
    }

    #[test]
    fn each_precision_has_its_ceiling() {
        let cpu = r#"{"side":"ceiling","f32_tflops":0.1,"bf16_tflops":0.2,"tf32_tflops":null,"cudnn_allow_tf32":true}"#;
        let gpu = r#"{"side":"ceiling","f32_tflops":50,"bf16_tflops":700,"tf32_tflops":400,"cudnn_allow_tf32":true}"#;
        let off = r#"{"side":"ceiling","f32_tflops":50,"tf32_tflops":400}"#;
        let cases = [
            (cpu, Some(("f32", 0.1)), Some(("bf16", 0.2))),
            (gpu, Some(("tf32", 400.0)), Some(("bf16", 700.0))),
            (off, Some(("f32", 50.0)), None),
        ];
        for (json, f32, bf16) in cases {
            let Line::Ceiling(found) = find(json).unwrap().1 else {
                panic!("{json} is a ceiling");
            };
            assert_eq!(found.of(Precision::F32), f32, "{json}");
            assert_eq!(found.of(Precision::Bf16), bf16, "{json}");
        }
    }
}
