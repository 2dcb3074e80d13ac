//! The generated code in the repository matches the .proto files.
//!
//! Building landmarl therefore needs no protoc, and a change of the contract
//! shows in review. `LANDMARL_REGEN=1 cargo test -p proto --test codegen`
//! regenerates it.

use prost::Message as _;
use std::fs;
use std::path::{Path, PathBuf};

const PROTOS: [&str; 2] = ["landmarl/v1/learner.proto", "landmarl/v1/replay.proto"];
const FILES: [&str; 2] = ["landmarl.v1.rs", "descriptor.bin"];
/// Messages that `--json` prints.
const PRINTED: [&str; 8] = [
    "ActorReport",
    "ActorStatus",
    "EvaluatorStatus",
    "JournalStatus",
    "LearnerStatus",
    "ShardLink",
    "ShardStatus",
    "ShardSummary",
];
/// How their fields are printed, where that is not as they are.
const ATTRIBUTES: [(&str, &str); 6] = [
    (
        "ActorReport.state",
        "serialize_with = \"crate::messages::status::state\"",
    ),
    ("ActorStatus.report", "flatten"),
    // As version 0.1.0 wrote it in validation.jsonl.
    (
        "Evaluation.baseline_error_mm",
        "alias = \"constant_guess_mm\"",
    ),
    (
        "LearnerStatus.rows_by_weights_age",
        "serialize_with = \"crate::messages::status::ages\"",
    ),
    (
        "ShardLink.summary",
        "flatten, serialize_with = \"crate::messages::status::counters\"",
    ),
    ("ShardStatus.summary", "flatten"),
];

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(PROTOS, [root]).expect("the .proto files compile");
    fs::write(into.join("descriptor.bin"), descriptors.encode_to_vec())
        .expect("write the descriptor");
    let mut config = tonic_prost_build::configure()
        // A line of validation.jsonl holds these fields, too.
        .type_attribute(
            "Evaluation",
            "#[derive(serde::Serialize, serde::Deserialize)]",
        );
    for message in PRINTED {
        config = config.type_attribute(message, "#[derive(serde::Serialize)]");
    }
    for (field, attribute) in ATTRIBUTES {
        config = config.field_attribute(field, format!("#[serde({attribute})]"));
    }
    config
        .bytes(".")
        .emit_rerun_if_changed(false)
        .out_dir(into)
        .compile_fds(descriptors)
        .expect("generate from the descriptor");
}

#[test]
fn generated_code_is_current() {
    let checked_in: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    if std::env::var_os("LANDMARL_REGEN").is_some() {
        fs::create_dir_all(&checked_in).expect("create src/gen");
        generate(&checked_in);
    }
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(fresh.path());
    for file in FILES {
        let want = fs::read(fresh.path().join(file)).expect("read the fresh file");
        let have = fs::read(checked_in.join(file)).unwrap_or_default();
        assert!(
            want == have,
            "proto/src/gen/{file} does not match the .proto files; \
             run LANDMARL_REGEN=1 cargo test -p proto --test codegen"
        );
    }
}
