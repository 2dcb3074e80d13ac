//! What a study compares.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::text;

/// A study file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Short, for folders.
    pub name: String,
    /// What it is to answer.
    pub question: String,
    /// The preset that all variants begin with, from the clone's root.
    config: String,
    /// Settings that all variants have.
    #[serde(default)]
    set: Vec<String>,
    seeds: Vec<u64>,
    /// Scans and landmark files to evaluate on.
    test_images: String,
    test_landmarks: String,
    /// `landmarl eval --protocol`.
    protocol: String,
    #[serde(rename = "variant")]
    pub variants: Vec<Variant>,
}

/// One way of training.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub name: String,
    /// Settings, beside those of all.
    #[serde(default)]
    set: Vec<String>,
}

/// A variant with a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Training {
    pub variant: String,
    pub seed: u64,
    /// Preset and settings, in the order in which they are given.
    pub settings: Vec<String>,
}

impl Training {
    /// Its name as a folder.
    pub fn folder(&self) -> String {
        format!("{}-s{}", slug(&self.variant), self.seed)
    }
}

fn slug(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    name.to_lowercase().chars().map(plain).collect()
}

impl Plan {
    /// Reads a study file.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        Self::parse(&file).with_context(|| format!("{shown} is not a study"))
    }

    fn parse(file: &str) -> Result<Self> {
        let plan: Self = toml::from_str(file)?;
        let mut names = BTreeSet::new();
        for variant in &plan.variants {
            if !names.insert(slug(&variant.name)) {
                bail!("two variants are called {:?}, or nearly so", variant.name);
            }
        }
        if plan.variants.is_empty() || plan.seeds.is_empty() || slug(&plan.name).is_empty() {
            bail!("a name, a variant and a seed are the least");
        }
        Ok(plan)
    }

    /// All trainings, seed by seed.
    pub fn trainings(&self, seeds: Option<&[u64]>, only: &[String]) -> Result<Vec<Training>> {
        let known = |name: &String| self.variants.iter().any(|v| v.name == *name);
        if let Some(unknown) = only.iter().find(|name| !known(name)) {
            let names: Vec<&str> = self.variants.iter().map(|v| v.name.as_str()).collect();
            bail!(
                "there is no variant {unknown:?}; there are {}",
                names.join(", ")
            );
        }
        let chosen: Vec<&Variant> = self
            .variants
            .iter()
            .filter(|v| only.is_empty() || only.contains(&v.name))
            .collect();
        let all = seeds.unwrap_or(&self.seeds).iter().flat_map(|&seed| {
            chosen.iter().map(move |variant| Training {
                variant: variant.name.clone(),
                seed,
                settings: self.settings(variant),
            })
        });
        Ok(all.collect())
    }

    fn settings(&self, variant: &Variant) -> Vec<String> {
        let all = [
            vec![self.config.clone()],
            self.set.clone(),
            variant.set.clone(),
        ];
        all.concat()
    }

    /// `landmarl train …` from the beginning.
    pub fn train_arguments(&self, training: &Training, runs: &Path) -> Vec<String> {
        let mut line = vec!["train".to_owned(), "--config".to_owned()];
        line.push(self.config.clone());
        for setting in &training.settings[1..] {
            line.extend(["--set".to_owned(), setting.clone()]);
        }
        let seed = training.seed.to_string();
        let rest = [
            ("--seed", seed),
            ("--name", training.folder()),
            ("--run-dir", text(runs)),
        ];
        line.extend(
            rest.into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value]),
        );
        line
    }

    /// `landmarl eval …` of a finished run.
    pub fn eval_arguments(&self, run: &Path, out: &Path) -> Vec<String> {
        let rest = [
            ("--load", text(run)),
            ("--images", self.test_images.clone()),
            ("--landmarks-files", self.test_landmarks.clone()),
            ("--protocol", self.protocol.clone()),
            ("--out", text(out)),
        ];
        let flags = rest
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        [
            vec!["eval".to_owned()],
            flags.collect(),
            vec!["--no-pictures".to_owned()],
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        name = "demo"
        question = "Does it?"
        config = "configs/mouse-small.toml"
        set = ["learner.updates=10"]
        seeds = [1, 2]
        test_images = "val/images.txt"
        test_landmarks = "val/landmarks.txt"
        protocol = "19"
        [[variant]]
        name = "gamma 0.9"
        set = ["learner.gamma=0.9"]
        [[variant]]
        name = "as it is"
    "#;

    #[test]
    fn trainings_go_seed_by_seed_with_all_settings() {
        let plan = Plan::parse(FILE).unwrap();
        let all = plan.trainings(None, &[]).unwrap();
        let folders: Vec<String> = all.iter().map(Training::folder).collect();
        assert_eq!(
            folders,
            ["gamma-0.9-s1", "as-it-is-s1", "gamma-0.9-s2", "as-it-is-s2"]
        );
        let line = plan
            .train_arguments(&all[2], Path::new("out/runs"))
            .join(" ");
        assert_eq!(
            line,
            "train --config configs/mouse-small.toml --set learner.updates=10 \
             --set learner.gamma=0.9 --seed 2 --name gamma-0.9-s2 --run-dir out/runs"
        );
        let one = plan.trainings(Some(&[7]), &["as it is".into()]).unwrap();
        assert_eq!((one.len(), one[0].seed, one[0].settings.len()), (1, 7, 2));
        let error = plan
            .trainings(None, &["no".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("gamma 0.9, as it is"), "{error}");
    }

    #[test]
    fn mistakes_in_the_file_are_said() {
        let twice = FILE.replace("as it is", "Gamma-0.9");
        assert!(
            Plan::parse(&twice)
                .unwrap_err()
                .to_string()
                .contains("two variants")
        );
        assert!(Plan::parse(&FILE.replace("question", "qestion")).is_err());
    }

    #[test]
    fn the_studies_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/studies");
        let mut read = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let plan = Plan::read(&entry.unwrap().path()).unwrap();
            assert!(plan.variants.len() > 1 && !plan.question.is_empty());
            read += 1;
        }
        assert!(read > 0);
    }
}
