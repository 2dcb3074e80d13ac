//! Output files that commands create: a file that was there is replaced only with `--force`.

use std::path::Path;

use crate::output::failure::{Advice, Exit};

/// Whether a file that was there may be replaced.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Replace {
    /// Replace the output file if it exists
    #[arg(long)]
    force: bool,
}

impl Replace {
    /// Refuses a path where something is that must not be replaced.
    pub fn check(self, out: &Path) -> Result<(), Advice> {
        let Ok(there) = out.symlink_metadata() else {
            return Ok(());
        };
        let shown = out.display();
        let refuse =
            |message: String, hint: &str| Err(Advice::new(Exit::Failed, message).hint(hint));
        if out.is_dir() {
            let hint = "name a file in it with --out";
            return refuse(format!("{shown} is a folder"), hint);
        }
        if !there.is_file() && !there.is_symlink() {
            let hint = "name another file with --out";
            return refuse(format!("{shown} is a device or a pipe, not a file"), hint);
        }
        if self.force {
            return Ok(());
        }
        let hint = "replace it with --force, or name another file with --out";
        refuse(format!("{shown} exists already; nothing was written"), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_there_are_replaced_with_force_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        let check = |path: &Path, force: bool| {
            let checked = Replace { force }.check(path);
            checked.err().map(|advice| advice.to_string())
        };
        assert_eq!(check(&file, false), None);
        std::fs::write(&file, "precious").unwrap();
        assert!(check(&file, false).unwrap().contains("exists already"));
        assert_eq!(check(&file, true), None);
        // Renaming would put a file where the folder or the device is.
        assert!(check(dir.path(), true).unwrap().ends_with("is a folder"));
        assert!(
            check(Path::new("/dev/null"), true)
                .unwrap()
                .contains("a device")
        );
    }
}
