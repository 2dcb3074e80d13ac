//! Rejects checkpoints of the TensorFlow programs.

use std::path::Path;

use crate::output::failure::{Advice, Exit};

/// An error for a TensorFlow checkpoint: its prefix, one of its files, or its folder.
pub(super) fn refuse(load: &Path) -> Result<(), Advice> {
    let name = load.file_name().unwrap_or_default().to_string_lossy();
    let exists = |ending: &str| load.with_file_name(format!("{name}{ending}")).exists();
    let prefix = exists(".index") || exists(".meta") || exists(".data-00000-of-00001");
    let part =
        name.ends_with(".index") || name.ends_with(".meta") || name.contains(".data-00000-of-");
    let folder = load.is_dir() && load.join("checkpoint").is_file();
    // The 2019 programs save `model-600000`, which is then a prefix, not a file.
    let numbered = name.strip_prefix("model-");
    let numbered = numbered.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
        && !load.exists();
    if prefix || part || folder || numbered {
        let message = format!(
            "{} is a TensorFlow checkpoint, which is unsupported",
            load.display()
        );
        let hint = "supported are rl-medical's PyTorch weights (.pt, .safetensors); train TensorFlow networks again";
        return Err(Advice::new(Exit::Data, message).hint(hint));
    }
    Ok(())
}
