//! The named networks.

use crate::network::spec::{Activation, ConvSpec, Init, NetworkKind, NetworkSpec, Padding};

fn conv(kernel: usize, channels: usize, stride: usize, padding: Padding, pool: bool) -> ConvSpec {
    ConvSpec {
        kernel,
        channels,
        stride,
        padding,
        pool,
    }
}

impl NetworkSpec {
    /// The network for CPUs: a window of 24 samples and three strided
    /// convolutions of 16, 32 and 64 channels, padded so that every voxel is
    /// used (24 → 12 → 6 → 3 per side), LeakyReLU, heads 256 → 128 → 6.
    #[must_use]
    pub fn small(agents: usize, history: usize, scales: Option<usize>) -> Self {
        Self {
            kind: NetworkKind::Collab,
            agents,
            history,
            window: 24,
            conv: vec![
                conv(5, 16, 2, Padding::Zeros(2), false),
                conv(3, 32, 2, Padding::Zeros(1), false),
                conv(3, 64, 2, Padding::Zeros(1), false),
            ],
            activation: Activation::LeakyRelu,
            head_activation: Activation::LeakyRelu,
            hidden: vec![256, 128],
            actions: 6,
            dueling: false,
            scales,
            attention: false,
            init: Init::Kaiming,
        }
    }

    /// rl-medical's PyTorch networks, Network3d and CommNet (`src/DQNModel.py`):
    /// four frames of 45³ samples, 550,860 parameters for one agent.
    #[must_use]
    pub fn reference_torch(kind: NetworkKind, agents: usize) -> Self {
        Self {
            kind,
            agents,
            history: 4,
            window: 45,
            conv: vec![
                conv(5, 32, 1, Padding::Zeros(1), true),
                conv(5, 32, 1, Padding::Zeros(1), true),
                conv(4, 64, 1, Padding::Zeros(1), true),
                conv(3, 64, 1, Padding::Zeros(0), false),
            ],
            activation: Activation::Prelu,
            head_activation: Activation::Prelu,
            hidden: vec![256, 128],
            actions: 6,
            dueling: false,
            scales: None,
            attention: false,
            init: Init::Xavier,
        }
    }

    /// The TensorFlow originals' network (Vlontzos et al. 2019; Alansary et
    /// al. 2019): `same` padding, heads 512 → 256 → 128 → 6.
    ///
    /// Activations are those of the single-agent code: PReLU after
    /// convolutions, LeakyReLU in heads. The multi-agent code has
    /// [`Activation::Linear`] convolutions, because its activation scope never
    /// applies, and [`Activation::Relu`] heads.
    #[must_use]
    pub fn reference_tf(agents: usize) -> Self {
        Self {
            conv: vec![
                conv(5, 32, 1, Padding::SAME, true),
                conv(5, 32, 1, Padding::SAME, true),
                conv(4, 64, 1, Padding::SAME, true),
                conv(3, 64, 1, Padding::SAME, false),
            ],
            head_activation: Activation::LeakyRelu,
            hidden: vec![512, 256, 128],
            init: Init::HeTruncated,
            ..Self::reference_torch(NetworkKind::Collab, agents)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::layout::Layout;

    fn count(spec: &NetworkSpec) -> usize {
        Layout::new(spec).unwrap().parameter_count()
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let torch = NetworkSpec::reference_torch;
        for (agents, expected) in [(1, 550_860), (3, 880_860), (5, 1_210_860), (8, 1_705_860)] {
            assert_eq!(count(&torch(NetworkKind::Collab, agents)), expected);
        }
        for (agents, expected) in [(3, 1_374_684), (5, 2_033_900), (8, 3_022_724)] {
            assert_eq!(count(&torch(NetworkKind::Commnet, agents)), expected);
        }
        for (agents, expected) in [(2, 8_908_876), (3, 13_170_386), (5, 21_693_406)] {
            let mut spec = NetworkSpec::reference_tf(agents);
            (spec.activation, spec.head_activation) = (Activation::Linear, Activation::Relu);
            assert_eq!(count(&spec), expected);
        }
        let mut single = NetworkSpec::reference_tf(1);
        assert_eq!(count(&single), 4_647_370);
        single.dueling = true;
        assert_eq!(count(&single), 8_908_235);
    }

    #[test]
    fn sides_and_features_are_the_published_ones() {
        let torch = NetworkSpec::reference_torch(NetworkKind::Collab, 1);
        let small = NetworkSpec::small(1, 1, Some(3));
        let table = [
            (torch, vec![21, 9, 4, 2], 512),
            (NetworkSpec::reference_tf(1), vec![22, 11, 5, 5], 8000),
            (small, vec![12, 6, 3], 64 * 27 + 3),
        ];
        for (spec, sides, features) in table {
            spec.validate().unwrap();
            assert_eq!(spec.feature_sides().unwrap(), sides);
            assert_eq!(spec.features().unwrap(), features);
        }
    }
}
