//! Weights files: round trips, and invalid files.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use model::files::tensor_file;
use model::files::weights::{
    NETWORK_KEY, from_bytes, inspect, parameters_from_bytes, parameters_to_bytes, to_bytes,
    to_bytes_bf16,
};
use model::{ModelError, Network, NetworkKind, NetworkSpec};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::{Device, Kind, Tensor};

use crate::noise::{file, file_tensors, network};

fn specs() -> Vec<NetworkSpec> {
    let torch = NetworkSpec::reference_torch;
    vec![
        torch(NetworkKind::Collab, 2),
        NetworkSpec {
            attention: true,
            dueling: true,
            ..torch(NetworkKind::Commnet, 3)
        },
        NetworkSpec {
            dueling: true,
            ..NetworkSpec::small(4, 1, Some(3))
        },
    ]
}

fn notes() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("landmarl.version".to_owned(), "17".to_owned()),
        ("rules".to_owned(), "{}".to_owned()),
    ])
}

fn equal(a: &Network, b: &Network) -> bool {
    let (a, b) = (a.trainable(), b.trainable());
    a.iter().zip(&b).all(|(a, b)| a.equal(b))
}

#[test]
fn written_weights_are_read_back() {
    for spec in specs() {
        let network = network(&spec);
        let bytes = to_bytes(&network, &notes()).unwrap();
        assert_eq!(bytes, to_bytes(&network, &notes()).unwrap());
        let read = from_bytes(&bytes).unwrap();
        assert_eq!(read.network.spec(), &spec);
        assert!(equal(&read.network, &network));
        assert!(read.network.trainable().iter().all(Tensor::requires_grad));
        assert_eq!(read.metadata["landmarl.version"], "17");
        assert_eq!(inspect(&bytes).unwrap(), (spec.clone(), read.metadata));

        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut other = Network::new(&spec, &mut rng, Device::Cpu).unwrap();
        let handle = other.trainable();
        other.copy_from(&read.network).unwrap();
        assert!(equal(&other, &network));
        // Copying keeps the tensors.
        assert!(handle[0].equal(&network.trainable()[0]));
    }
}

#[test]
fn the_file_holds_what_the_formula_wrote() {
    let spec = NetworkSpec::small(3, 1, None);
    let bytes = to_bytes(&network(&spec), &BTreeMap::new()).unwrap();
    let sealed = tensor_file::seal(&file(&spec), &BTreeMap::new()).unwrap();
    assert_eq!(bytes, sealed);
    let (tensors, _) = tensor_file::read(&bytes).unwrap();
    let expected = file_tensors(&spec);
    assert_eq!(tensors.len(), expected.len());
    for (name, tensor) in expected {
        let mut found = tensors.iter();
        assert!(found.any(|(n, t)| *n == name && t.equal(&tensor)), "{name}");
    }
}

#[test]
fn damaged_weights_are_refused_and_files_of_others_load_without_a_digest() {
    let good = to_bytes(&network(&NetworkSpec::small(2, 1, None)), &notes()).unwrap();
    let mut damaged = good.clone();
    let end = damaged.len() - 100;
    damaged[end] ^= 4;
    for error in [
        from_bytes(&damaged).map(drop),
        inspect(&damaged).map(drop),
        parameters_from_bytes(&damaged).map(drop),
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, ModelError::Damaged { .. }), "{error}");
    }
    // Written again from what was read, with its own digest.
    let read = from_bytes(&good).unwrap();
    assert_eq!(to_bytes(&read.network, &read.metadata).unwrap(), good);
    let plain = parameters_to_bytes(
        read.network.spec(),
        read.network.parameters(),
        Kind::Float,
        &read.metadata,
    );
    let plain = plain.unwrap();
    assert!(
        !from_bytes(&plain)
            .unwrap()
            .metadata
            .contains_key("landmarl.sha256")
    );
}

#[test]
fn bf16_halves_the_size_and_rounds() {
    let spec = NetworkSpec::small(2, 1, Some(3));
    let network = network(&spec);
    let wide = to_bytes(&network, &notes()).unwrap();
    let narrow = to_bytes_bf16(&network, &notes()).unwrap();
    assert!(narrow.len() * 2 < wide.len() + 20_000);
    let read = from_bytes(&narrow).unwrap().network;
    for (a, b) in network.trainable().iter().zip(read.trainable()) {
        assert_eq!(b.kind(), Kind::Float);
        assert!(a.to_kind(Kind::BFloat16).to_kind(Kind::Float).equal(&b));
    }
}

#[test]
fn moments_are_written_like_parameters() {
    let spec = NetworkSpec::small(2, 1, None);
    let moments = network(&spec).parameters().deep_clone(Device::Cpu).unwrap();
    let bytes = parameters_to_bytes(&spec, &moments, Kind::Float, &notes()).unwrap();
    let (read_spec, read, _) = parameters_from_bytes(&bytes).unwrap();
    assert_eq!(read_spec, spec);
    for ((n, a), (m, b)) in read.iter().zip(moments.iter()) {
        assert!(n == m && a.equal(b), "{n} {m}");
    }
    let other = NetworkSpec::small(3, 1, None);
    assert!(parameters_to_bytes(&other, &moments, Kind::Float, &notes()).is_err());
}

#[test]
fn one_shared_prelu_is_read_for_every_agent() {
    let spec = NetworkSpec::reference_torch(NetworkKind::Commnet, 3);
    let mut tensors = file_tensors(&spec);
    tensors.retain(|(name, _)| !name.starts_with("prelu4.") && !name.starts_with("prelu5."));
    tensors.push(("prelu4.weight".to_owned(), Tensor::from_slice(&[0.125_f32])));
    tensors.push(("prelu5.weight".to_owned(), Tensor::from_slice(&[0.5_f32])));
    let bytes = tensor_file::write(&tensors, &BTreeMap::new()).unwrap();
    let network = from_bytes(&bytes).unwrap().network;
    assert_eq!(*network.spec(), spec);
    let mut parameters = network.parameters().iter();
    let (_, slopes) = parameters.find(|(n, _)| *n == "prelu4.weight").unwrap();
    assert_eq!(Vec::<f32>::try_from(slopes).unwrap(), [0.125; 3]);
}

#[test]
fn other_precisions_and_wrapped_names_give_the_same_network() {
    let spec = NetworkSpec::reference_torch(NetworkKind::Collab, 2);
    for (kind, prefix) in [
        (Kind::Half, ""),
        (Kind::BFloat16, "module."),
        (Kind::Double, "_orig_mod.module."),
        (Kind::Float, "state_dict.model."),
    ] {
        // Rounded to the precision first, so that the values must be equal.
        let rounded = |tensor: &Tensor| tensor.to_kind(kind);
        let wrapped = file_tensors(&spec).into_iter();
        let wrapped: Vec<_> = wrapped
            .map(|(name, tensor)| (format!("{prefix}{name}"), rounded(&tensor)))
            .collect();
        let bytes = tensor_file::write(&wrapped, &BTreeMap::new()).unwrap();
        let read = from_bytes(&bytes).unwrap().network;
        assert_eq!(*read.spec(), spec, "{prefix}");
        let expected = network(&spec);
        for (a, b) in expected.trainable().iter().zip(read.trainable()) {
            assert_eq!(b.kind(), Kind::Float);
            assert!(rounded(a).to_kind(Kind::Float).equal(&b), "{prefix}");
        }
    }
}

#[test]
fn the_error_for_an_unknown_network_lists_what_was_found() {
    let names = ["encoder.weight", "head.bias"];
    let tensors = names.map(|n| (n.to_owned(), Tensor::from_slice(&[0.5_f32])));
    let bytes = tensor_file::write(&tensors, &BTreeMap::new()).unwrap();
    let error = from_bytes(&bytes).unwrap_err().to_string();
    let words = "there is no conv0.weight among its 2 tensors: encoder.weight, head.bias";
    assert!(error.contains(words), "{error}");
}

/// The error of reading a file with changed tensors or metadata.
fn broken(change: impl Fn(&mut Vec<(String, Tensor)>, &mut BTreeMap<String, String>)) -> String {
    let spec = NetworkSpec::small(2, 1, None);
    let mut tensors = file_tensors(&spec);
    let json = serde_json::to_string(&spec).unwrap();
    let mut metadata = BTreeMap::from([(NETWORK_KEY.to_owned(), json)]);
    change(&mut tensors, &mut metadata);
    let bytes = tensor_file::write(&tensors, &metadata).unwrap();
    from_bytes(&bytes).unwrap_err().to_string()
}

/// The error of reading a file with zeros in a tensor's place.
fn replaced(name: &str, shape: &[i64], kind: Kind) -> String {
    broken(|tensors, _| {
        let zeros = Tensor::zeros(shape, (kind, Device::Cpu));
        tensors.iter_mut().find(|(n, _)| n == name).unwrap().1 = zeros;
    })
}

#[test]
fn errors_name_what_is_wrong_with_a_file() {
    assert_eq!(
        broken(|t, _| t.retain(|(name, _)| name != "fc2.1.bias")),
        "weights file: tensor fc2.1.bias of shape [128] is missing"
    );
    assert_eq!(
        broken(|t, _| t.push(("fc9.0.bias".to_owned(), Tensor::from_slice(&[0.0_f32])))),
        "weights file: tensor fc9.0.bias does not belong to this network"
    );
    assert_eq!(
        replaced("fc3.1.weight", &[128, 6], Kind::Float),
        "weights file: tensor fc3.1.weight: expected shape [6, 128], found [128, 6]"
    );
    assert_eq!(
        replaced("conv0.bias", &[16], Kind::Int64),
        "weights file: tensor conv0.bias: expected F32, F64, BF16 or F16, found I64"
    );
    let unknown = broken(|_, m| m.clear());
    let start = "weights file without metadata: conv1.weight has a kernel";
    assert!(unknown.starts_with(start), "{unknown}");
    let invalid = broken(|_, m| drop(m.insert(NETWORK_KEY.to_owned(), "{".to_owned())));
    let start = "weights file: metadata landmarl.network: ";
    assert!(invalid.starts_with(start), "{invalid}");
    let huge = broken(|_, m| {
        let text = m[NETWORK_KEY].replace("\"agents\":2", "\"agents\":18446744073709551615");
        m.insert(NETWORK_KEY.to_owned(), text);
    });
    let bounds = "network: agents is 18446744073709551615, expected 1 to 1024";
    assert_eq!(huge, bounds);
}

#[test]
fn weights_of_another_network_are_refused_with_the_differences() {
    let mut mine = network(&NetworkSpec::small(2, 1, Some(3)));
    let before = mine.deep_clone(Device::Cpu).unwrap();
    let mut other = NetworkSpec::small(5, 1, Some(3));
    other.hidden = vec![64];
    let error = mine.copy_from(&network(&other)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "these weights belong to another network: agents is 2 here and 5 there, hidden is [256,128] here and [64] there"
    );
    assert!(equal(&mine, &before));
}

fn small_file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let mut spec = NetworkSpec::small(2, 1, None);
        spec.conv.truncate(1);
        spec.window = 5;
        spec.hidden = vec![4];
        file(&spec)
    })
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small_file();
    assert!(from_bytes(bytes).is_ok());
    for length in (0..bytes.len()).step_by(97).chain([7, 8, bytes.len() - 1]) {
        let error = from_bytes(&bytes[..length]).unwrap_err();
        assert!(
            matches!(error, ModelError::NotSafetensors { size, .. } if size == length),
            "{length}: {error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(from_bytes(&bytes).is_err());
        prop_assert!(tensor_file::read(&bytes).is_err() || bytes.len() >= 10);
    }

    #[test]
    fn a_random_header_never_panics(header in "\\{(\"[a-z_]{1,12}\":(\\{\"dtype\":\"(F32|F64|I64|U8|BF16)\",\"shape\":\\[[0-9]{0,20}\\],\"data_offsets\":\\[0,[0-9]{1,19}\\]\\}|[0-9]{1,3})){0,1}\\}", tail in 0_usize..40) {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.resize(bytes.len() + tail, 1);
        prop_assert!(from_bytes(&bytes).is_err());
        if let Ok((tensors, _)) = tensor_file::read(&bytes) {
            prop_assert!(tensors.len() <= 1);
        }
    }

    #[test]
    fn changed_bytes_never_panic(at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), in_header in any::<bool>()) {
        let mut bytes = small_file().to_vec();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let end = if in_header { 8 + header } else { bytes.len() };
        for (index, value) in at {
            let i = index.index(end);
            bytes[i] = value;
        }
        if let Ok(read) = from_bytes(&bytes) {
            prop_assert_eq!(read.network.spec().validate().is_ok(), true);
        }
    }
}
