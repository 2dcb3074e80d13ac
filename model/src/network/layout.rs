//! The parameters of a network: names, shapes, order, and their representation in
//! a weights file.
//!
//! In memory the heads of all agents are stacked, `[agents, in, out]`, so that
//! they run as one batched product. In a file each agent has its own tensors in
//! PyTorch's layout, `[out, in]`, under rl-medical's names.

use crate::error::Result;
use crate::network::spec::{Activation, NetworkKind, NetworkSpec};

/// The role of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `[channels, input channels, kernel, kernel, kernel]`.
    ConvWeight,
    /// `[channels]`.
    ConvBias,
    /// The slope of a convolution's PReLU, `[1]`.
    ConvPrelu,
    /// `[agents, in, out]`; in a file `[out, in]` per agent.
    HeadWeight,
    /// `[agents, out]`.
    HeadBias,
    /// Slopes of a hidden layer's PReLU, `[agents]`; in a file `[1]` per agent.
    HeadPrelu,
    /// Attention scores, `[receiving agent, sending agent]`.
    Attention,
}

impl Role {
    /// Whether the first axis is the agent.
    #[must_use]
    pub fn stacked(self) -> bool {
        matches!(
            self,
            Self::HeadWeight | Self::HeadBias | Self::HeadPrelu | Self::Attention
        )
    }
}

/// One parameter of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Layer, such as `conv0`, `fc1`, `prelu4`, `value.fc1`, `comm_att1`.
    pub layer: String,
    /// `weight`, `bias` or nothing.
    pub leaf: &'static str,
    pub role: Role,
    /// Shape in memory.
    pub shape: Vec<usize>,
    /// Number of values that one output of the layer sums over.
    pub fan_in: usize,
    /// Number of outputs that one input of the layer reaches.
    pub fan_out: usize,
    /// Whether it belongs to the layer that outputs Q-values.
    pub last: bool,
}

impl Slot {
    /// Name in memory, without an agent index.
    #[must_use]
    pub fn name(&self) -> String {
        join(&self.layer, None, self.leaf)
    }

    /// Name in a weights file of one agent's part, or of the whole if it is not stacked.
    #[must_use]
    pub fn file_name(&self, agent: usize) -> String {
        join(&self.layer, self.role.stacked().then_some(agent), self.leaf)
    }

    /// Shape in a weights file.
    #[must_use]
    pub fn file_shape(&self) -> Vec<usize> {
        match self.role {
            Role::HeadWeight => vec![self.shape[2], self.shape[1]],
            Role::HeadBias | Role::Attention => vec![self.shape[1]],
            Role::HeadPrelu => vec![1],
            Role::ConvWeight | Role::ConvBias | Role::ConvPrelu => self.shape.clone(),
        }
    }

    /// Number of tensors in a weights file.
    #[must_use]
    pub fn file_parts(&self) -> usize {
        if self.role.stacked() {
            self.shape[0]
        } else {
            1
        }
    }
}

fn join(layer: &str, agent: Option<usize>, leaf: &str) -> String {
    let agent = agent.map_or_else(String::new, |agent| format!(".{agent}"));
    let dot = if leaf.is_empty() { "" } else { "." };
    format!("{layer}{agent}{dot}{leaf}")
}

/// All parameters of a network in their fixed order: trunk, then the heads'
/// layers, then the value stream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The parameters.
    pub slots: Vec<Slot>,
}

impl Layout {
    /// The parameters of a network.
    ///
    /// # Errors
    /// When the spec is invalid.
    pub fn new(spec: &NetworkSpec) -> Result<Self> {
        spec.validate()?;
        let mut slots = Vec::new();
        let mut input = spec.history;
        for (i, conv) in spec.conv.iter().enumerate() {
            let cube = conv.kernel.pow(3);
            let slot = |layer: &str, leaf, role, shape| Slot {
                layer: format!("{layer}{i}"),
                leaf,
                role,
                shape,
                fan_in: input * cube,
                fan_out: conv.channels * cube,
                last: false,
            };
            let k = conv.kernel;
            let shape = vec![conv.channels, input, k, k, k];
            slots.push(slot("conv", "weight", Role::ConvWeight, shape));
            slots.push(slot("conv", "bias", Role::ConvBias, vec![conv.channels]));
            if spec.activation == Activation::Prelu {
                slots.push(slot("prelu", "weight", Role::ConvPrelu, vec![1]));
            }
            input = conv.channels;
        }
        stream(&mut slots, spec, "", spec.actions)?;
        if spec.dueling {
            stream(&mut slots, spec, "value.", 1)?;
        }
        Ok(Self { slots })
    }

    /// Number of trainable values.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let sizes = self.slots.iter().map(|s| s.shape.iter().product::<usize>());
        sizes.sum()
    }
}

/// The layers of one stream of heads: `fc1`, `fc2`, …; PReLUs continue the
/// numbering of the convolutions' ones, as rl-medical names them.
fn stream(slots: &mut Vec<Slot>, spec: &NetworkSpec, prefix: &str, outputs: usize) -> Result<()> {
    let agents = spec.agents;
    let mut width = spec.features()?;
    for j in 0..=spec.hidden.len() {
        let last = j == spec.hidden.len();
        let output = spec.hidden.get(j).copied().unwrap_or(outputs);
        let fan_in = if spec.kind == NetworkKind::Commnet {
            2 * width
        } else {
            width
        };
        let slot = |layer: String, leaf, role, shape| Slot {
            layer: format!("{prefix}{layer}"),
            leaf,
            role,
            shape,
            fan_in,
            fan_out: output,
            last,
        };
        let fc = format!("fc{}", j + 1);
        if spec.attention {
            let name = format!("comm_att{}", j + 1);
            slots.push(slot(name, "", Role::Attention, vec![agents, agents]));
        }
        let shape = vec![agents, fan_in, output];
        slots.push(slot(fc.clone(), "weight", Role::HeadWeight, shape));
        slots.push(slot(fc, "bias", Role::HeadBias, vec![agents, output]));
        if !last && spec.head_activation == Activation::Prelu {
            let name = format!("prelu{}", spec.conv.len() + j);
            slots.push(slot(name, "weight", Role::HeadPrelu, vec![agents]));
        }
        width = output;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rl_medicals() {
        let layout = Layout::new(&NetworkSpec::reference_torch(NetworkKind::Collab, 2)).unwrap();
        let slots = layout.slots.iter();
        let names = slots.flat_map(|s| (0..s.file_parts()).map(|agent| s.file_name(agent)));
        let trunk = (0..4).flat_map(|i| {
            let layers = [("conv", "weight"), ("conv", "bias"), ("prelu", "weight")];
            layers.map(|(layer, leaf)| format!("{layer}{i}.{leaf}"))
        });
        let heads = "fc1.0.weight fc1.1.weight fc1.0.bias fc1.1.bias \
            prelu4.0.weight prelu4.1.weight \
            fc2.0.weight fc2.1.weight fc2.0.bias fc2.1.bias \
            prelu5.0.weight prelu5.1.weight \
            fc3.0.weight fc3.1.weight fc3.0.bias fc3.1.bias";
        let expected = trunk.chain(heads.split(' ').map(str::to_owned));
        assert_eq!(names.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let fc1 = &layout.slots[12];
        assert_eq!(fc1.name(), "fc1.weight");
        assert_eq!(fc1.shape, [2, 512, 256]);
        assert_eq!(fc1.file_shape(), [256, 512]);
    }

    #[test]
    fn options_add_their_parameters() {
        let mut spec = NetworkSpec::reference_torch(NetworkKind::Commnet, 3);
        (spec.attention, spec.dueling) = (true, true);
        let layout = Layout::new(&spec).unwrap();
        let attention = layout.slots.iter().filter(|s| s.role == Role::Attention);
        let attention: Vec<_> = attention.map(|s| s.file_name(2)).collect();
        let advantage = [1, 2, 3].map(|j| format!("comm_att{j}.2"));
        let value = [1, 2, 3].map(|j| format!("value.comm_att{j}.2"));
        assert_eq!(attention, [advantage, value].concat());
        let last = layout.slots.iter().filter(|s| s.last && s.leaf == "bias");
        let shapes: Vec<_> = last.map(|s| s.shape.clone()).collect();
        assert_eq!(shapes, [[3, 6], [3, 1]]);
    }
}
