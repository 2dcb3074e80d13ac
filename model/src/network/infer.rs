//! Recognises rl-medical's networks by their tensors' names and shapes.

use std::collections::BTreeMap;

use crate::error::{ModelError, Result};
use crate::files::list;
use crate::network::spec::{NetworkKind, NetworkSpec};

impl NetworkSpec {
    /// The network of a weights file without our metadata.
    ///
    /// Shapes do not determine strides, padding or pooling, so only files with the
    /// kernels of rl-medical's PyTorch networks are recognised, for any number
    /// of agents, frames, channels and hidden layers.
    ///
    /// # Errors
    /// [`ModelError::Unrecognised`] with the mismatch.
    pub fn infer(shapes: &BTreeMap<String, Vec<usize>>) -> Result<Self> {
        let refuse = |reason: String| ModelError::Unrecognised(reason);
        let shape = |name: &str| {
            let found = shapes.get(name).map(Vec::as_slice);
            found.ok_or_else(|| refuse(missing(shapes, name)))
        };
        let agents = (0..)
            .take_while(|a| shapes.contains_key(&format!("fc1.{a}.weight")))
            .count();
        let mut spec = Self::reference_torch(NetworkKind::Collab, agents);
        for (i, conv) in spec.conv.iter_mut().enumerate() {
            let name = format!("conv{i}.weight");
            let k = conv.kernel;
            let &[channels, inputs, x, y, z] = shape(&name)? else {
                return Err(refuse(format!("{name} has not five axes")));
            };
            if [x, y, z] != [k; 3] {
                return Err(refuse(format!(
                    "{name} has a kernel of {x}×{y}×{z}, expected {k}×{k}×{k}"
                )));
            }
            conv.channels = channels;
            if i == 0 {
                spec.history = inputs;
            }
        }
        if agents == 0 {
            return Err(refuse(missing(shapes, "fc1.0.weight")));
        }
        let mut widths = Vec::new();
        while let Some(width) = shapes.get(&format!("fc{}.0.weight", widths.len() + 1)) {
            widths.push(*width.first().unwrap_or(&0));
        }
        spec.actions = widths.pop().unwrap_or(0);
        spec.hidden = widths;
        spec.attention = shapes.contains_key("comm_att1.0");
        // Bounds first: the width below is computed from values in the file.
        let found = shape("fc1.0.weight")?.last().copied().unwrap_or(0);
        spec.kind = NetworkKind::Commnet;
        spec.validate()?;
        let features = spec.features()?;
        if found == 2 * features {
            return Ok(spec);
        }
        if found != features {
            return Err(refuse(format!(
                "fc1.0.weight takes {found} features, expected {features} (Network3d) or {} (CommNet)",
                2 * features
            )));
        }
        spec.kind = NetworkKind::Collab;
        spec.validate()?;
        Ok(spec)
    }
}

fn missing(shapes: &BTreeMap<String, Vec<usize>>, name: &str) -> String {
    let names: Vec<&String> = shapes.keys().collect();
    let (count, names) = (names.len(), list(&names));
    format!("there is no {name} among its {count} tensors: {names}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::layout::Layout;

    fn shapes(spec: &NetworkSpec) -> BTreeMap<String, Vec<usize>> {
        let layout = Layout::new(spec).unwrap();
        let parts = layout.slots.iter().flat_map(|slot| {
            (0..slot.file_parts()).map(|agent| (slot.file_name(agent), slot.file_shape()))
        });
        parts.collect()
    }

    #[test]
    fn published_networks_are_recognised() {
        for kind in [NetworkKind::Collab, NetworkKind::Commnet] {
            for agents in [1, 3, 8] {
                for attention in [false, kind == NetworkKind::Commnet] {
                    let mut spec = NetworkSpec::reference_torch(kind, agents);
                    spec.attention = attention;
                    assert_eq!(NetworkSpec::infer(&shapes(&spec)).unwrap(), spec);
                    (spec.history, spec.conv[1].channels, spec.hidden) = (1, 8, vec![64]);
                    assert_eq!(NetworkSpec::infer(&shapes(&spec)).unwrap(), spec);
                }
            }
        }
    }

    #[test]
    fn other_networks_are_not() {
        let error = |shapes: &BTreeMap<_, _>| NetworkSpec::infer(shapes).unwrap_err().to_string();
        assert!(error(&BTreeMap::new()).contains("there is no conv0.weight"));
        let small = error(&shapes(&NetworkSpec::small(1, 1, None)));
        assert!(small.contains("kernel of 3×3×3, expected 5×5×5"), "{small}");
        let mut odd = shapes(&NetworkSpec::reference_torch(NetworkKind::Collab, 1));
        odd.insert("fc1.0.weight".to_owned(), vec![256, 700]);
        let expected = "takes 700 features, expected 512 (Network3d) or 1024 (CommNet)";
        assert!(error(&odd).contains(expected), "{}", error(&odd));
        odd.insert("conv3.weight".to_owned(), vec![usize::MAX, 1, 3, 3, 3]);
        assert!(error(&odd).contains("channels"));
    }
}
