//! The fully connected heads of all agents, run as one batched product.

use tch::Tensor;

use crate::error::Result;
use crate::network::communication::append_message;
use crate::network::layer::activate;
use crate::network::layout::{Layout, Role};
use crate::network::parameters::Parameters;
use crate::network::spec::{Activation, NetworkKind, NetworkSpec};

/// One stream of heads (Q-values, advantages, or the state's value), as indices
/// of parameters.
#[derive(Debug)]
pub(crate) struct Heads {
    layers: Vec<Layer>,
    activation: Activation,
    communicates: bool,
}

#[derive(Debug, Default)]
struct Layer {
    weight: usize,
    bias: usize,
    prelu: Option<usize>,
    scores: Option<usize>,
}

impl Heads {
    /// The streams of a layout: one, or two if it is dueling.
    pub(crate) fn streams(spec: &NetworkSpec, layout: &Layout) -> Vec<Self> {
        let mut streams = Vec::new();
        let mut layers = Vec::new();
        let mut scores = None;
        for (place, slot) in layout.slots.iter().enumerate() {
            match slot.role {
                Role::Attention => scores = Some(place),
                Role::HeadWeight => {
                    layers.push(Layer {
                        weight: place,
                        scores: scores.take(),
                        ..Layer::default()
                    });
                }
                Role::HeadBias => {
                    if let Some(layer) = layers.last_mut() {
                        layer.bias = place;
                    }
                    if slot.last {
                        streams.push(Self {
                            layers: std::mem::take(&mut layers),
                            activation: spec.head_activation,
                            communicates: spec.kind == NetworkKind::Commnet,
                        });
                    }
                }
                Role::HeadPrelu => {
                    if let Some(layer) = layers.last_mut() {
                        layer.prelu = Some(place);
                    }
                }
                Role::ConvWeight | Role::ConvBias | Role::ConvPrelu => {}
            }
        }
        streams
    }

    /// Features `[A, N, F]` → `[A, N, outputs]`; row `a` goes through agent `a`'s head.
    pub(crate) fn forward(&self, p: &Parameters, features: &Tensor) -> Result<Tensor> {
        let mut x = features.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            if self.communicates {
                x = append_message(&x, layer.scores.map(|place| p.at(place)))?;
            }
            let bias = p.at(layer.bias).f_unsqueeze(1)?;
            x = bias.f_baddbmm(&x, p.at(layer.weight), 1, 1)?;
            if i + 1 < self.layers.len() {
                x = activate_per_agent(&x, self.activation, layer.prelu.map(|place| p.at(place)))?;
            }
        }
        Ok(x)
    }
}

/// PReLU has one slope per entry of axis 1, so the agents are moved there temporarily.
fn activate_per_agent(
    x: &Tensor,
    activation: Activation,
    slope: Option<&Tensor>,
) -> Result<Tensor> {
    if slope.is_none() {
        return activate(x, activation, None);
    }
    Ok(activate(&x.f_transpose(0, 1)?, activation, slope)?.f_transpose(0, 1)?)
}
