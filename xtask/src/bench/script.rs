//! The scripts of bench/ as programs to run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;

use anyhow::{Context, Result, ensure};
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
    /// `bench/NAME.py` with a flag for every field of the options; several for a
    /// list, none for an absent or false one.
    pub fn new(name: &'static str, python: &Path, options: &impl Serialize) -> Result<Self> {
        // A bare name is looked for on PATH.
        let python = match python.components().count() {
            1 => python.to_path_buf(),
            _ => std::path::absolute(python)?,
        };
        let mut flags: Vec<OsString> = Vec::new();
        let options = serde_json::to_value(options).context("an option is not UTF-8")?;
        for (name, value) in options.as_object().into_iter().flatten() {
            let values: &[Value] = match value {
                Value::Array(values) => values,
                value => slice::from_ref(value),
            };
            for value in values {
                match value {
                    Value::Null | Value::Bool(false) => {}
                    Value::Bool(true) => flags.push(format!("--{name}").into()),
                    Value::String(text) => flags.push(format!("--{name}={text}").into()),
                    value => flags.push(format!("--{name}={value}").into()),
                }
            }
        }
        Ok(Self {
            name,
            python,
            flags,
        })
    }

    /// One more flag, if there is a value for it.
    pub fn path(mut self, name: &str, path: impl Into<Option<PathBuf>>) -> Self {
        if let Some(path) = path.into() {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(path);
            self.flags.push(flag);
        }
        self
    }

    fn command(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.command(&self.python);
        // No __pycache__ beside the sources, and every line as soon as it is printed.
        let script = format!("bench/{}.py", self.name);
        command.args(["-B", "-u", &script]).args(&self.flags);
        command
    }

    /// Runs it in the clone's top folder; it prints figures and errors itself.
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let mut command = self.command(workspace);
        println!("$ {}", command::show(&command));
        let (name, python) = (self.name, self.python.display());
        let status = command.status();
        let status = status
            .with_context(|| format!("cannot start {python}: install Python 3.9 or newer"))?;
        let good = status.success();
        ensure!(good, "bench/{name}.py failed ({status}), see above");
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
            let Some(python) = python("scripts_accept_their_flags") else {
                return;
            };
            let name = self.name;
            let import = format!("import sys; sys.path.insert(0, 'bench'); import {name}");
            let code = format!("{import}; {name}.parse_options(sys.argv[1:])");
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
        let error = |python: &str| {
            let script = Script::new("eval", Path::new(python), &()).unwrap();
            let script = script.path("unknown", PathBuf::from("x"));
            let error = script.run(&Workspace::find().unwrap()).unwrap_err();
            error.to_string()
        };
        if let Some(python) = python("a_script_that_fails_is_named") {
            assert!(error(python).contains("bench/eval.py failed"));
        }
        assert!(error("/no/python").contains("cannot start /no/python"));
    }
}
