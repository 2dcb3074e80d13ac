//! State dicts built by hand, valid and damaged.

use std::io::{Cursor, Write as _};

use proptest::prelude::*;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    super::read(bytes, &Limits::default())
}

/// A pickle being written, as Python's protocol 2.
struct Pen(Vec<u8>);

impl Pen {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn text(mut self, text: &str) -> Self {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn int(mut self, number: i32) -> Self {
        self.0.push(b'J');
        self.0.extend(number.to_le_bytes());
        self
    }

    fn sizes(self, sizes: &[i32]) -> Self {
        let marked = sizes.iter().fold(self.raw(b"("), |pen, &n| pen.int(n));
        marked.raw(b"t")
    }

    /// `name: tensor` between a mark and `u`.
    fn tensor(self, name: &str, t: &Laid) -> Self {
        self.text(name)
            .raw(b"ctorch._utils\n_rebuild_tensor_v2\n((")
            .text("storage")
            .raw(b"ctorch\n")
            .raw(t.class.as_bytes())
            .raw(b"\n")
            .text(t.key)
            .text("cpu")
            .int(t.count)
            .raw(b"tQ")
            .int(t.offset)
            .sizes(&t.size)
            .sizes(&t.stride)
            .raw(b"\x89ccollections\nOrderedDict\n)RtR")
    }

    fn end(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// A tensor and its storage.
struct Laid {
    class: &'static str,
    key: &'static str,
    count: i32,
    offset: i32,
    size: Vec<i32>,
    stride: Vec<i32>,
    bytes: Vec<u8>,
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Two rows of three, transposed in memory, and one number.
fn two() -> Vec<(&'static str, Laid)> {
    let weight = Laid {
        class: "FloatStorage",
        key: "7",
        count: 7,
        offset: 1,
        size: vec![2, 3],
        stride: vec![1, 2],
        bytes: floats(&[9.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
    };
    let bias = Laid {
        class: "HalfStorage",
        key: "8",
        count: 2,
        offset: 0,
        size: vec![2],
        stride: vec![1],
        bytes: vec![0x00, 0xc1, 0x55, 0x35],
    };
    vec![("fc.weight", weight), ("fc.bias", bias)]
}

fn state_dict(pen: Pen, tensors: &[(&str, Laid)]) -> Pen {
    let pen = pen.raw(b"ccollections\nOrderedDict\n)Rq\x00(");
    let pen = tensors
        .iter()
        .fold(pen, |pen, (name, t)| pen.tensor(name, t));
    // The state of a state dict: its `_metadata`.
    pen.raw(b"u}").text("_metadata").raw(b"}sb")
}

fn legacy(pickle: &[u8], tensors: &[(&str, Laid)]) -> Vec<u8> {
    let mut bytes =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    bytes.extend(pickle);
    let keys = Pen::new().raw(b"](");
    let keys = tensors.iter().fold(keys, |pen, (_, t)| pen.text(t.key));
    bytes.extend(keys.raw(b"e").end());
    for (_, t) in tensors {
        bytes.extend(i64::from(t.count).to_le_bytes());
        bytes.extend(&t.bytes);
    }
    bytes
}

fn zipped(pickle: &[u8], tensors: &[(&str, Laid)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("made/{name}"), stored).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("data.pkl", pickle);
    add("byteorder", b"little");
    let mut written = Vec::new();
    for (_, t) in tensors.iter().filter(|(_, t)| !t.bytes.is_empty()) {
        if !written.contains(&t.key) {
            add(&format!("data/{}", t.key), &t.bytes);
            written.push(t.key);
        }
    }
    add("version", b"3\n");
    zip.finish().unwrap().into_inner()
}

fn numbers(tensors: &[(String, Tensor)]) -> Vec<(String, Vec<i64>, Vec<f32>)> {
    let one = |(name, t): &(String, Tensor)| {
        let values = Vec::<f32>::try_from(t.flatten(0, -1)).unwrap();
        (name.clone(), t.size(), values)
    };
    tensors.iter().map(one).collect()
}

#[test]
fn both_formats_give_the_same_tensors() {
    let tensors = two();
    let pickle = state_dict(Pen::new(), &tensors).end();
    let weight = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let expected = vec![
        ("fc.bias".to_owned(), vec![2], vec![-2.5, 0.333_251_95]),
        ("fc.weight".to_owned(), vec![2, 3], weight),
    ];
    for bytes in [legacy(&pickle, &tensors), zipped(&pickle, &tensors)] {
        assert_eq!(numbers(&read(&bytes).unwrap()), expected);
    }
    // Beside other things, as training scripts save it.
    let pen = Pen::new().raw(b"}(").text("epoch").int(3);
    let pen = state_dict(pen.text("model_state_dict"), &tensors);
    let nested = pen.raw(b"u").end();
    for bytes in [legacy(&nested, &tensors), zipped(&nested, &tensors)] {
        assert_eq!(numbers(&read(&bytes).unwrap()), expected);
    }
}

#[test]
fn halves_are_exact() {
    let table = [
        (0x0000, 0.0),
        (0x8000, -0.0),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x0001, 5.960_464_5e-8),
        (0x7bff, 65504.0),
        (0x7c00, f32::INFINITY),
    ];
    for (bits, value) in table {
        assert_eq!(half(bits).to_bits(), f32::to_bits(value), "{bits:#06x}");
    }
    assert!(half(0x7e00).is_nan());
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let refused = |bytes: &[u8], words: &str| {
        let message = read(bytes).unwrap_err().to_string();
        assert!(message.contains(words), "{words} is not in: {message}");
    };
    refused(b"", "neither a zip file nor PyTorch's older format");
    refused(b"PK\x03\x04 and no more", "not a PyTorch state dict");
    let tensors = two();
    let pickle = state_dict(Pen::new(), &tensors).end();
    let whole = legacy(&pickle, &tensors);
    refused(&whole[..whole.len() - 1], "it is cut off");
    let empty = Pen::new().raw(b"}").end();
    refused(&legacy(&empty, &[]), "it holds no state dict");
    let others = Pen::new().raw(b"}(").text("epoch").int(3).text("lr").int(1);
    let others = others.raw(b"u").end();
    refused(&zipped(&others, &[]), "its keys are epoch, lr");
    // A name that Python would execute remains a name.
    let call = Pen::new().raw(b"cos\nsystem\n(").text("touch /tmp/x");
    let call = call.raw(b"tR").end();
    refused(&zipped(&call, &[]), "it holds no state dict");
    // The older format stores the source text of a model's class.
    let class = Pen::new()
        .raw(b"(")
        .text("module")
        .raw(b"cnet\nNetwork3D\n");
    let model = class
        .text("net.py")
        .text("class Network3D")
        .raw(b"tQ)\x81}b");
    refused(
        &legacy(&model.end(), &[]),
        "a whole object of class net.Network3D",
    );
    let build = Pen::new().raw(b"(i__main__\nThing\n").end();
    refused(&zipped(&build, &[]), "instruction 0x69");
    let with = |change: fn(&mut Laid)| {
        let mut tensors = two();
        change(&mut tensors[0].1);
        zipped(&state_dict(Pen::new(), &tensors).end(), &tensors)
    };
    let beyond = "reaches beyond its storage";
    refused(&with(|t| t.offset = 2), beyond);
    refused(&with(|t| t.offset = -1), "not described as PyTorch does");
    refused(&with(|t| t.size = vec![2000, 3000]), beyond);
    refused(&with(|t| t.stride = vec![1]), beyond);
    refused(&with(|t| t.class = "LongStorage"), "storage 7 has");
    let longer = "longer than the 7 bytes";
    refused(&with(|t| t.class = "CharStorage"), longer);
    refused(&with(|t| t.key = "8"), "described in two ways");
    refused(&with(|t| t.count = 9), "storage 7 has 28 of 36 bytes");
}

/// Named tensors that share one storage of `count` numbers.
fn shared(names: &[String], count: i32, stored: usize) -> Vec<(&str, Laid)> {
    let laid = || Laid {
        class: "FloatStorage",
        key: "0",
        count,
        offset: 0,
        size: vec![count],
        stride: vec![1],
        bytes: vec![0; stored],
    };
    names.iter().map(|name| (name.as_str(), laid())).collect()
}

#[test]
fn content_that_expands_too_far_is_refused_before_it_is_read() {
    let names: Vec<String> = (0..300).map(|i| format!("w{i}")).collect();
    let words = "more than 200 times the file";
    // 300 tensors of 256 kB in a file of 300 kB; both formats.
    let tensors = shared(&names, 1 << 16, 4 << 16);
    let pickle = state_dict(Pen::new(), &tensors).end();
    for bytes in [legacy(&pickle, &tensors[..1]), zipped(&pickle, &tensors)] {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(error.contains("raise data.max_expansion"), "{error}");
    }
    // A few may share one, and what a raised limit allows is read.
    let few = shared(&names[..3], 1 << 10, 4 << 10);
    let pickle = state_dict(Pen::new(), &few).end();
    for bytes in [legacy(&pickle, &few[..1]), zipped(&pickle, &few)] {
        assert_eq!(read(&bytes).unwrap().len(), 3);
    }
    let described = |name: &String| Described {
        name: name.clone(),
        key: "0".to_owned(),
        offset: 0,
        size: vec![1 << 16],
        stride: vec![1],
    };
    let described: Vec<_> = names.iter().map(described).collect();
    let storages = [("0".to_owned(), Element::F32, 1 << 16)];
    let allowed = |max_expansion| {
        let limits = Limits {
            max_expansion,
            ..Limits::default()
        };
        check_expansion(300_000, &storages, &described, &limits).is_ok()
    };
    assert_eq!([200, 400].map(allowed), [false, true]);
    // A compressed storage that claims 80 MB.
    let bomb = shared(&names[..1], 20_000_000, 8);
    let pickle = state_dict(Pen::new(), &bomb).end();
    let error = read(&zipped(&pickle, &bomb)).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn deep_and_circular_pickles_end() {
    // A million nested lists, and a list that contains itself.
    let deep = Pen::new().raw(&b"]".repeat(1_000_000));
    let deep = deep.raw(&b"a".repeat(999_999)).end();
    assert!(read(&zipped(&deep, &[])).is_err());
    let round = Pen::new().raw(b"]q\x00h\x00a").end();
    assert!(read(&zipped(&round, &[])).is_err());
    let calls = Pen::new()
        .raw(b"}")
        .text("w")
        .raw(b"ctorch._utils\n_rebuild_parameter\n]q\x01Rh\x01h\x01a0s")
        .end();
    assert!(read(&zipped(&calls, &[])).is_err());
    let many = b"]".repeat(1_000_001);
    let message = read(&zipped(&many, &[])).unwrap_err().to_string();
    assert!(message.contains("more than 1000000 values"), "{message}");
}

/// Many nested dictionaries, whose paths have all keys before them, and a file may name a
/// class once for each of its values.
#[test]
fn long_names_do_not_multiply() {
    let long = "k".repeat(600);
    let tensors = two();
    let nested = |levels: usize| {
        let open = (0..levels).fold(Pen::new(), |pen, _| pen.raw(b"}(").text(&long));
        let inner = state_dict(open, &tensors).raw(&b"u".repeat(levels)).end();
        read(&zipped(&inner, &tensors)).map_err(|error| error.to_string())
    };
    assert_eq!(nested(1).unwrap().len(), 2);
    let deep = nested(2).unwrap_err();
    assert!(deep.contains("it holds no state dict"), "{deep}");
    let class = |length: usize| {
        let name = "C".repeat(length);
        let named = Pen::new().raw(b"}").text("c").raw(b"cm\n");
        let named = named.raw(name.as_bytes()).raw(b"\ns").end();
        read(&zipped(&named, &[])).unwrap_err().to_string()
    };
    assert!(class(1023).contains("its keys are c"), "{}", class(1023));
    assert!(class(1024).contains("a class name of 1025 bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Damaged files give an error or other values, never a panic.
    #[test]
    fn damaged_files_never_panic(
        zip in any::<bool>(),
        cut in 0.0..1.2_f64,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let tensors = two();
        let pickle = state_dict(Pen::new(), &tensors).end();
        let mut bytes = if zip { zipped(&pickle, &tensors) } else { legacy(&pickle, &tensors) };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a part of a small file")]
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        let _ = read(&bytes);
    }
}
