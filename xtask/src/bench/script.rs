//! The scripts of bench/ as programs to run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use crate::command;
use crate::workspace::Workspace;

/// A script, the Python that runs it, and its flags.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    python: PathBuf,
    flags: Vec<OsString>,
}

impl Script {
    /// `bench/NAME.py`.
    pub fn new(name: &'static str, python: &Path) -> Self {
        Self {
            name,
            python: python.to_owned(),
            flags: Vec::new(),
        }
    }

    /// A flag for every field; several for a list, none for an absent or false one.
    pub fn options(mut self, options: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(options).context("an option is no text")?;
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                Value::Array(values) => values.iter().for_each(|value| self.flag(name, value)),
                value => self.flag(name, value),
            }
        }
        Ok(self)
    }

    fn flag(&mut self, name: &str, value: &Value) {
        match value {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => self.flags.push(format!("--{name}").into()),
            Value::String(text) => self.flags.push(format!("--{name}={text}").into()),
            value => self.flags.push(format!("--{name}={value}").into()),
        }
    }

    /// One more flag.
    pub fn path(mut self, name: &str, path: &Path) -> Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(path);
        self.flags.push(flag);
        self
    }

    /// One more flag, if there is a value for it.
    pub fn path_if(self, name: &str, path: Option<&Path>) -> Self {
        match path {
            Some(path) => self.path(name, path),
            None => self,
        }
    }

    fn command(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.command(&self.python.to_string_lossy());
        // No __pycache__ beside the sources, and every line as soon as it is printed.
        command.args(["-B", "-u"]);
        command
            .arg(format!("bench/{}.py", self.name))
            .args(&self.flags);
        command
    }

    /// Runs it in the clone's top folder; it prints figures and errors itself.
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let mut command = self.command(workspace);
        println!("$ {}", command::show(&command));
        let status = command.status().with_context(|| {
            let python = self.python.display();
            format!("{python} does not start: install Python 3.9 or newer")
        })?;
        if !status.success() {
            bail!("bench/{}.py failed ({status}), see above", self.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Python that runs the scripts, unless there is none.
    fn python(test: &str) -> Option<&'static str> {
        let found = command::read(Command::new("python3").arg("--version"));
        if let Err(error) = &found {
            println!("skipped: {test}: {error:#}");
        }
        found.ok().map(|_| "python3")
    }

    impl Script {
        pub fn show(&self) -> String {
            command::show(&self.command(&Workspace::find().unwrap()))
        }

        pub fn accepts_its_flags(&self) {
            let Some(python) = python("scripts_accept_what_they_are_started_with") else {
                return;
            };
            let code = format!(
                "import sys; sys.path.insert(0, 'bench'); import {0}; {0}.parse_options(sys.argv[1:])",
                self.name
            );
            let mut command = Workspace::find().unwrap().command(python);
            command.args(["-B", "-c", &code]).args(&self.flags);
            command::read(&mut command).unwrap();
        }
    }

    #[test]
    fn the_scripts_pass_their_own_tests() {
        let Some(python) = python("the_scripts_pass_their_own_tests") else {
            return;
        };
        let mut command = Workspace::find().unwrap().command(python);
        command.args(["-B", "-m", "unittest", "discover"]);
        command::read(command.args(["-s", "bench/tests", "-t", "bench"])).unwrap();
    }

    #[test]
    fn a_script_that_fails_is_named() {
        let script = Script::new("eval", Path::new("python3")).path("unknown", Path::new("x"));
        if python("a_script_that_fails_is_named").is_some() {
            let error = script.run(&Workspace::find().unwrap()).unwrap_err();
            assert!(
                error.to_string().contains("bench/eval.py failed"),
                "{error}"
            );
        }
        let script = Script::new("eval", Path::new("/no/python"));
        let error = script.run(&Workspace::find().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("/no/python does not start"),
            "{error}"
        );
    }
}
