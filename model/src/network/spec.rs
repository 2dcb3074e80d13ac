//! The specification of a network: everything that determines a tensor's shape.

pub use common::config::NetworkKind;
use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

/// Activation of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(0, x) + a·min(0, x)` with one learned `a` per layer (per agent in
    /// heads), initially 0.25.
    Prelu,
    /// PReLU with `a` fixed at 0.01.
    LeakyRelu,
    /// `max(0, x)`.
    Relu,
    /// The identity: the published code of the 2019 paper has it after convolutions.
    Linear,
}

/// Initialisation of parameters; see `init.rs` for the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Xavier uniform weights, PyTorch's default biases (rl-medical).
    #[default]
    Xavier,
    /// Kaiming uniform weights for LeakyReLU, `±1/√fan_in` in the last layer.
    Kaiming,
    /// Truncated normal of variance `2 / fan_in`, zero biases (the TensorFlow originals).
    HeTruncated,
}

/// Zeros around the input of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Padding {
    /// This many on every side.
    Zeros(usize),
    /// TensorFlow's `"same"`: the output has `⌈n / stride⌉` samples per side, and
    /// where the zeros cannot be split evenly the far side gets one more.
    Named(Same),
}

/// The word `same` in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Same {
    /// See [`Padding::Named`].
    Same,
}

impl Padding {
    /// TensorFlow's padding.
    pub const SAME: Self = Self::Named(Same::Same);

    /// Zeros (before, after) an axis of `n` samples.
    #[must_use]
    pub fn around(self, n: usize, kernel: usize, stride: usize) -> (usize, usize) {
        match self {
            Self::Zeros(p) => (p, p),
            Self::Named(Same::Same) => {
                let out = n.div_ceil(stride);
                let total = ((out.max(1) - 1) * stride + kernel).saturating_sub(n);
                (total / 2, total - total / 2)
            }
        }
    }
}

/// One cubic 3D convolution, its activation and its pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvSpec {
    /// Samples per side of the kernel.
    pub kernel: usize,
    /// Output channels.
    pub channels: usize,
    /// Samples between neighbouring outputs.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// Whether a 2³ max-pool of stride 2 follows the activation.
    pub pool: bool,
}

/// A Q-network: windows in, one Q-value per action out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Whether agents exchange messages.
    pub kind: NetworkKind,
    /// Number of agents, each with its own head.
    pub agents: usize,
    /// Frames in an observation: input channels, oldest first.
    pub history: usize,
    /// Samples per side of a window.
    pub window: usize,
    /// The shared convolutions, first to last.
    pub conv: Vec<ConvSpec>,
    /// Activation after each convolution.
    pub activation: Activation,
    /// Activation after each hidden layer of a head.
    pub head_activation: Activation,
    /// Widths of the hidden layers of a head.
    pub hidden: Vec<usize>,
    /// Number of actions.
    #[serde(default = "six")]
    pub actions: usize,
    /// Separate streams for the state's value and the actions' advantages:
    /// `Q = V + A − mean(A)`.
    #[serde(default)]
    pub dueling: bool,
    /// Number of scales whose one-hot index is appended to the trunk's features; 0: not appended.
    #[serde(default)]
    pub scales: Option<usize>,
    /// CommNet only: learned weights per receiving agent and layer instead of the mean.
    #[serde(default)]
    pub attention: bool,
    /// Initialisation of parameters; irrelevant for a trained network.
    #[serde(default)]
    pub init: Init,
}

fn six() -> usize {
    6
}

/// Bounds that keep every size computed from a spec far from overflow, because
/// a spec may come from an untrusted file.
const BOUNDS: [(&str, usize); 7] = [
    ("agents", 1024),
    ("history", 64),
    ("window", 128),
    ("actions", 64),
    ("scales", 32),
    ("channels", 2048),
    ("hidden", 16_384),
];

impl NetworkSpec {
    /// Checks every field and that the window is large enough for the convolutions.
    ///
    /// # Errors
    /// [`ModelError::Spec`] names the field or the layer, its value and the bounds.
    pub fn validate(&self) -> Result<()> {
        check("agents", self.agents)?;
        check("history", self.history)?;
        check("window", self.window)?;
        check("actions", self.actions)?;
        if let Some(scales) = self.scales {
            check("scales", scales)?;
        }
        let layers = [
            ("conv", self.conv.len(), 1),
            ("hidden", self.hidden.len(), 0),
        ];
        for (name, count, least) in layers {
            if !(least..=16).contains(&count) {
                let text = format!("{name} has {count} layers, expected {least} to 16");
                return Err(spec(text));
            }
        }
        for &width in &self.hidden {
            check("hidden", width)?;
        }
        for (i, conv) in self.conv.iter().enumerate() {
            check("channels", conv.channels)?;
            let small = |what, v: usize, lo: usize, hi: usize| {
                if (lo..=hi).contains(&v) {
                    return Ok(());
                }
                let text = format!("{what} of conv{i} is {v}, expected {lo} to {hi}");
                Err(spec(text))
            };
            small("kernel", conv.kernel, 1, 31)?;
            small("stride", conv.stride, 1, 16)?;
            if let Padding::Zeros(p) = conv.padding {
                small("padding", p, 0, conv.kernel - 1)?;
            }
        }
        if self.attention && self.kind != NetworkKind::Commnet {
            return Err(spec("attention needs kind = \"commnet\"".to_owned()));
        }
        self.feature_sides().map(|_| ())
    }

    /// Samples per side after each convolution and its pooling.
    ///
    /// # Errors
    /// [`ModelError::Spec`] if a layer has no output.
    pub fn feature_sides(&self) -> Result<Vec<usize>> {
        let mut side = self.window;
        let mut sides = Vec::with_capacity(self.conv.len());
        for (i, conv) in self.conv.iter().enumerate() {
            let (before, after) = conv.padding.around(side, conv.kernel, conv.stride);
            let padded = side + before + after;
            let Some(free) = padded.checked_sub(conv.kernel) else {
                return Err(spec(format!(
                    "a window of {} samples is too small: conv{i} (kernel {}) gets {side} samples per side, {padded} with padding",
                    self.window, conv.kernel
                )));
            };
            let out = free / conv.stride + 1;
            if conv.pool && out < 2 {
                return Err(spec(format!(
                    "a window of {} samples is too small: conv{i} leaves {out} sample per side, its pooling needs 2",
                    self.window
                )));
            }
            side = if conv.pool { out / 2 } else { out };
            sides.push(side);
        }
        Ok(sides)
    }

    /// Adds a layer before the heads: a convolution whose kernel covers the whole
    /// output of the others, so a fully connected layer that all agents share.
    ///
    /// # Errors
    /// As [`NetworkSpec::feature_sides`].
    pub fn share(&mut self, outputs: usize) -> Result<()> {
        let side = self.feature_sides()?.last().copied();
        self.conv.push(ConvSpec {
            kernel: side.unwrap_or(self.window),
            channels: outputs,
            stride: 1,
            padding: Padding::Zeros(0),
            pool: false,
        });
        Ok(())
    }

    /// Number of values per sample that the heads receive, the scale included.
    ///
    /// # Errors
    /// As [`NetworkSpec::feature_sides`].
    pub fn features(&self) -> Result<usize> {
        let side = self.feature_sides()?.last().copied().unwrap_or(self.window);
        let channels = self.conv.last().map_or(self.history, |c| c.channels);
        Ok(channels * side.pow(3) + self.scales.unwrap_or(0))
    }

    /// Sorted list of differences from `other`, one clause each; empty when the
    /// weights of one fit the other. Initialisation is not compared.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |spec: &Self| match serde_json::to_value(spec) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        ours.iter()
            .filter(|(key, value)| *key != "init" && theirs.get(*key) != Some(*value))
            .map(|(key, value)| {
                let found = theirs.get(key).unwrap_or(&serde_json::Value::Null);
                format!("{key} is {value} here and {found} there")
            })
            .collect()
    }
}

fn check(name: &str, value: usize) -> Result<()> {
    let bound = BOUNDS.iter().find(|(n, _)| *n == name);
    let most = bound.map_or(usize::MAX, |(_, most)| *most);
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(spec(format!("{name} is {value}, expected 1 to {most}")))
}

fn spec(text: String) -> ModelError {
    ModelError::Spec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_follows_tensorflow() {
        let table = [
            // (n, kernel, stride) → zeros before and after
            ((45, 5, 1), (2, 2)),
            ((11, 4, 1), (1, 2)),
            ((5, 3, 1), (1, 1)),
            ((24, 5, 2), (1, 2)),
            ((7, 3, 2), (1, 1)),
            ((4, 1, 2), (0, 0)),
        ];
        for ((n, kernel, stride), expected) in table {
            let found = Padding::SAME.around(n, kernel, stride);
            assert_eq!(found, expected, "{n} {kernel} {stride}");
        }
        assert_eq!(Padding::Zeros(3).around(9, 5, 1), (3, 3));
    }

    #[test]
    fn errors_name_the_layer() {
        let error = |change: fn(&mut NetworkSpec)| {
            let mut spec = NetworkSpec::reference_torch(NetworkKind::Collab, 2);
            change(&mut spec);
            spec.validate().unwrap_err().to_string()
        };
        let pooling = "network: a window of 16 samples is too small: conv2 leaves 1 sample per side, its pooling needs 2";
        assert_eq!(error(|s| s.window = 16), pooling);
        let kernel = "network: a window of 2 samples is too small: conv0 (kernel 5) gets 2 samples per side, 4 with padding";
        assert_eq!(error(|s| s.window = 2), kernel);
        assert!(error(|s| s.agents = 0).contains("agents is 0, expected 1 to 1024"));
        assert!(error(|s| s.window = 129).contains("window is 129"));
        assert!(error(|s| s.conv.clear()).contains("conv has 0 layers"));
        assert!(error(|s| s.conv[1].stride = 0).contains("stride of conv1 is 0"));
        assert!(error(|s| s.hidden[1] = 0).contains("hidden is 0"));
        assert!(error(|s| s.scales = Some(0)).contains("scales is 0"));
        assert!(error(|s| s.attention = true).contains("commnet"));
    }

    #[test]
    fn a_spec_reads_back_and_refuses_unknown_fields() {
        for spec in [
            NetworkSpec::small(4, 1, Some(3)),
            NetworkSpec::reference_torch(NetworkKind::Commnet, 3),
            NetworkSpec::reference_tf(2),
        ] {
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<NetworkSpec>(&text).unwrap(), spec);
        }
        let text = serde_json::to_string(&NetworkSpec::reference_tf(2)).unwrap();
        assert!(text.contains(r#""padding":"same""#), "{text}");
        let odd = text.replacen("\"kind\"", "\"colour\":1,\"kind\"", 1);
        let error = serde_json::from_str::<NetworkSpec>(&odd).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn differences_are_clauses() {
        let a = NetworkSpec::small(4, 1, Some(3));
        let mut b = a.clone();
        b.init = Init::Xavier;
        assert!(a.differences(&b).is_empty());
        b.agents = 5;
        b.scales = None;
        let agents = "agents is 4 here and 5 there";
        let scales = "scales is 3 here and null there";
        assert_eq!(a.differences(&b), [agents, scales]);
    }
}
