//! The exit code and the printed text of an error.

use std::fmt;

use actor::rollout::policy::PolicyError;
use common::run::run_folder::RunFolderError;
use learner::LearnerError;
use learner::TrainThreadError;
use learner::checkpoint::CheckpointError;
use learner::report::status_text::StatusError;
pub use proto::transport::entry::Exit;

/// An error of this command itself, with a hint about the next step.
#[derive(Debug)]
pub struct Advice {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Advice {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advice {}

/// The exit code for an error's type.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let found = error.chain().find_map(|cause| {
        if let Some(advice) = cause.downcast_ref::<Advice>() {
            return Some(advice.exit);
        }
        if cause.is::<StatusError>() {
            return Some(Exit::Unreachable);
        }
        match cause.downcast_ref::<RunFolderError>() {
            Some(RunFolderError::Name { .. }) => return Some(Exit::Usage),
            Some(_) => return Some(Exit::Failed),
            None => {}
        }
        let checkpoint = match cause.downcast_ref() {
            Some(LearnerError::Train(TrainThreadError::Checkpoint(error))) => Some(error),
            _ => cause.downcast_ref::<CheckpointError>(),
        };
        let data = cause.is::<model::ModelError>()
            || checkpoint.is_some_and(|error| !error.is_write())
            || cause.is::<common::phantom::DatasetError>();
        let unfit = matches!(cause.downcast_ref(), Some(PolicyError::Unfit { .. }));
        (data || unfit)
            .then_some(Exit::Data)
            .or_else(|| Exit::of_cause(cause))
    });
    let outermost = error.downcast_ref::<Advice>().map(|a| a.exit);
    outermost.or(found).unwrap_or(Exit::Failed)
}

/// `error: what: why`, and a second line with the next step. One line, unless the
/// error is a list, such as all problems of a data set.
pub fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().trim_end().to_owned();
        // Transparent errors repeat the error they wrap, and some libraries include
        // the cause in their own message.
        if parts.last().is_none_or(|before| !before.contains(&text)) {
            parts.push(text);
        }
    }
    let mut text = format!("error: {}\n", parts.join(": "));
    // A context cannot be found in the chain, only from the outermost error.
    let inner = error.chain().filter_map(|c| c.downcast_ref::<Advice>());
    let mut advice = error.downcast_ref::<Advice>().into_iter().chain(inner);
    if let Some(hint) = advice.find_map(|a| a.hint.as_ref()) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_chain_is_printed_on_one_line_without_repetition() {
        let error: anyhow::Error = Advice::new(Exit::Data, "32 bytes are missing\n")
            .hint("copy it again")
            .into();
        let error = error.context("read x.nii").context("load scans");
        assert_eq!(
            describe(&error),
            "error: load scans: read x.nii: 32 bytes are missing\nhint: copy it again\n"
        );
        assert_eq!(exit_of(&error), Exit::Data);
    }

    #[test]
    fn types_decide_the_exit_code() {
        let sources = common::config::Sources {
            set: vec!["learner.lrr=1".into()],
            ..Default::default()
        };
        let loaded = common::config::Config::load(&sources).context("load");
        let error = loaded.unwrap_err();
        assert_eq!(exit_of(&error), Exit::Config);
        assert_eq!(exit_of(&anyhow::anyhow!("other")), Exit::Failed);
    }
}
