//! Layers, errors and digests of the configuration.

use std::path::Path;

use super::*;

fn load(set: &[&str], env: &[(&str, &str)]) -> Result<Config, String> {
    let sources = Sources {
        saved: Vec::new(),
        files: Vec::new(),
        env: env
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        set: set.iter().map(|s| (*s).into()).collect(),
    };
    Config::load(&sources).map_err(|e| e.to_string())
}

#[test]
fn defaults_load_and_are_the_standard_rules() {
    let c = Config::defaults().unwrap();
    assert_eq!(c.rules, Rules::standard());
    let again: Config = toml::from_str(&c.to_toml().unwrap()).unwrap();
    assert_eq!(again, c);
}

#[test]
fn layers_override_each_other() {
    let c = load(
        &[
            "learner.batch=64",
            "data.train_images=a b.txt",
            "data.landmarks=[\"AC\",\"13\"]",
            "run.name=007",
        ],
        &[
            ("LANDMARL__LEARNER__BATCH", "32"),
            ("LANDMARL__LEARNER__LR", "1e-3"),
            ("OTHER", "x"),
        ],
    )
    .unwrap();
    assert_eq!((c.learner.batch, c.learner.lr), (64, 1e-3));
    assert_eq!(c.data.train_images, "a b.txt");
    assert_eq!(c.data.landmarks, ["AC", "13"]);
    assert_eq!(c.run.name, "007", "text stays text");
    assert_eq!(load(&["data.fold=3"], &[]).unwrap().data.fold(), Some(3));
    assert_eq!(load(&["data.fold=-1"], &[]).unwrap().data.fold(), None);
    let c = load(&["rules.target={ radius = 2.0 }"], &[]).unwrap();
    assert_eq!(
        c.rules.target,
        crate::environment::rules::TargetRule::Radius(2.0)
    );
}

#[test]
fn targets_beyond_the_own_step_need_known_rewards() {
    let text = |sets: &[&str]| load(sets, &[]).unwrap_err().to_string();
    assert_eq!(
        text(&["learner.goals=all", "learner.gamma=0.9"]),
        "config key \"learner.goals\": \"all\" needs learner.gamma = 0, network.kind = \"collab\", rules.strategy = \"own\" and rules.team = \"none\": only then do the rules give the rewards of other agents and actions"
    );
    for other in [
        "network.kind=commnet",
        "rules.strategy=line",
        "rules.team=mean",
    ] {
        let text = text(&["learner.objective=step_reward", "learner.gamma=0", other]);
        assert!(
            text.contains("\"learner.objective\": \"step_reward\" needs"),
            "{text}"
        );
    }
    let both = [
        "learner.goals=all",
        "learner.objective=step_reward",
        "learner.gamma=0",
    ];
    assert!(load(&both, &[]).is_ok());
}

#[test]
fn rows_and_q_values_are_bounded_by_the_rules() {
    for (set, row, q) in [
        (&["learner.gamma=0.5"][..], 1.0, 2.0),
        (&["learner.gamma=0.5", "learner.n_step=3"], 1.75, 2.0),
        (&["learner.gamma=0", "learner.n_step=3"], 1.0, 1.0),
        (
            &["learner.gamma=0.5", "learner.n_step=2", "rules.team=mean"],
            3.0,
            4.0,
        ),
    ] {
        let c = load(set, &[]).unwrap();
        assert_eq!((c.row_reward_max(), c.q_max()), (row, q), "{set:?}");
    }
}

#[test]
fn landmarks_may_be_numbers() {
    let config = load(&["data.landmarks=[13, \"AC\"]"], &[]).unwrap();
    assert_eq!(config.data.landmarks, ["13", "AC"]);
}

#[test]
fn bad_choices_name_their_key_and_what_is_allowed() {
    for (set, words) in [
        (
            "network.preset=smal",
            "config key \"network.preset\": unknown variant `smal`, expected one of `small`, `reference_torch`, `reference_tf`",
        ),
        (
            "rules.border=open",
            "config key \"rules.border\": unknown variant `open`, expected `inclusive` or `zero_blocked`",
        ),
    ] {
        let error = load(&[set], &[]).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn errors_name_key_layer_and_remedy() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["learner.btach=64"],
            "unknown config key \"learner.btach\" in --set learner.btach=64; did you mean \"learner.batch\"?",
        ),
        (
            &["learner.batch=7.9"],
            "config key \"learner.batch\" in --set learner.batch=7.9 must be a whole number, not negative, got 7.9",
        ),
        (
            &["learner.batch=-1"],
            "must be a whole number, not negative, got -1",
        ),
        (
            &["learner.batch=abc"],
            "must be a whole number, not negative, got \"abc\"",
        ),
        (
            &["data.fold=-2"],
            "\"data.fold\": must be a fold from 0, or -1 for none, got -2",
        ),
        (&["data.fold=x"], "must be a whole number, got \"x\""),
        (&["learner.double=1"], "must be true or false, got 1"),
        (
            &["learner.gamma=1.5"],
            "config key \"learner.gamma\": must lie in 0..=0.9999, got 1.5",
        ),
        (
            &["data.resample_mm=-1.0"],
            "config key \"data.resample_mm\": must lie in 0.001..=1000, got -1",
        ),
        (
            &["data.max_expansion=0"],
            "config key \"data.max_expansion\": must be at least 1",
        ),
        (
            &["network.kind=comm"],
            "config key \"network.kind\": unknown variant `comm`, expected `collab` or `commnet`",
        ),
        (
            &["rules.history=0"],
            "config key \"rules.history\": must lie in 1..=8, got 0",
        ),
        (
            &["replay.min_rows=70000"],
            "config key \"replay.min_rows\": 70000 rows can never be reached with a capacity of 60000",
        ),
        (
            &["actor.start_near_radius=[1.0]"],
            "needs one radius per scale: 3 scales, 1 radii",
        ),
        (
            &["learner"],
            "--set learner is not valid TOML: needs the form section.key=value",
        ),
    ];
    for (set, expected) in cases {
        let error = load(set, &[]).unwrap_err();
        assert!(error.contains(expected), "{set:?} gave: {error}");
    }
    let error = load(&[], &[("LANDMARL__LEARNER__BATCHES", "1")]).unwrap_err();
    assert!(
        error.contains(
            "in environment variable LANDMARL__LEARNER__BATCHES; did you mean \"learner.batch\"?"
        ),
        "{error}"
    );
}

#[test]
fn rates_that_cannot_be_meant_are_refused() {
    let factor = "learner.lr times the factor at most 0.1";
    for (set, expected) in [
        (
            "learner.lr=0.5",
            "config key \"learner.lr\": must lie in 0.000000001..=0.1, got 0.5",
        ),
        ("learner.lr=inf", "got inf"),
        ("learner.lr=nan", "got NaN"),
        ("learner.lr_steps=[[0.5, 1000.0]]", factor),
        ("learner.lr_steps=[[0.5, inf]]", factor),
        ("learner.lr_steps=[[0.5, nan]]", factor),
    ] {
        let error = load(&[set], &[]).unwrap_err();
        assert!(error.contains(expected), "{set} gave: {error}");
    }
}

#[test]
fn sizes_that_would_take_all_memory_are_refused() {
    let list = |entry: &str| format!("[{}]", [entry].repeat(300).join(","));
    for set in [
        "learner.threads=100000000",
        "actor.threads=100000000",
        "actor.slots=100000000",
        "actor.count=100000000",
        "learner.batch=100000000",
        "learner.prefetch=100000000",
        "network.shared=100000000",
        "network.hidden=[128, 100000000]",
        "network.hidden=[0]",
        "rules.window_size=100000000",
        "rules.history=100000000",
        "validation.starts=100000000",
        &format!("network.hidden={}", list("8")),
        &format!("learner.devices={}", list("\"cpu\"")),
    ] {
        let (key, _) = set.split_once('=').unwrap();
        let error = load(&[set], &[]).unwrap_err();
        assert!(error.contains(&format!("\"{key}\"")), "{set}: {error}");
    }
    assert!(load(&["learner.threads=0"], &[]).is_ok());
    assert!(load(&["learner.threads=256", "network.hidden=[]"], &[]).is_ok());
}

#[test]
fn names_under_which_http_answers_have_no_port() {
    let hosts = |value: &str| load(&[&format!("http.hosts={value}")], &[]);
    assert!(hosts("[\"metrics.lab\", \".example.org\", \"node_1\"]").is_ok());
    for name in ["a:7480", "http://a", "*", "", ".", "a b"] {
        let error = hosts(&format!("[\"a\", \"{name}\"]")).unwrap_err();
        let got = format!("got \"{name}\"");
        assert!(
            error.contains("http.hosts") && error.contains(&got),
            "{error}"
        );
    }
}

#[test]
fn tls_takes_all_its_files_or_none() {
    let [ca, cert, key] = [
        "cluster.ca=a.pem",
        "cluster.cert=b.pem",
        "cluster.key=b.key",
    ];
    for (set, missing, given) in [
        (vec![key], "cluster.ca", "cluster.key"),
        (vec![ca, key], "cluster.cert", "cluster.ca"),
        (vec![ca, cert], "cluster.key", "cluster.ca"),
    ] {
        let error = load(&set, &[]).unwrap_err();
        let message = format!("\"{missing}\": is empty although {given} is set");
        assert!(error.contains(&message), "{error}");
    }
    let all = load(&[ca, cert, key], &[]).unwrap();
    assert_eq!(all.cluster.cert, "b.pem");
}

#[test]
fn names_of_instances_and_addresses_are_checked() {
    let cases = [
        (
            "log.instance=a/b",
            "must consist of letters, digits, -, _ and ., got \"a/b\"",
        ),
        ("log.instance=.a", "\"log.instance\""),
        (
            "http.listen=localhost",
            "must be IP:PORT, as in 127.0.0.1:7480",
        ),
        ("http.listen=7480", "\"http.listen\""),
    ];
    for (set, expected) in cases {
        let error = load(&[set], &[]).unwrap_err();
        assert!(error.contains(expected), "{set} gave: {error}");
    }
    let c = load(&["log.instance=replay-0.a_b", "http.listen=[::1]:0"], &[]).unwrap();
    assert_eq!(
        (c.log.instance.as_str(), c.http.listen.as_str()),
        ("replay-0.a_b", "[::1]:0")
    );
}

#[test]
fn a_file_with_a_wrong_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.toml");
    std::fs::write(&path, "[learner]\nlearning_rate = 1.0\n").unwrap();
    let sources = Sources {
        files: vec![path.clone()],
        ..Sources::default()
    };
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(
        error.contains("\"learner.learning_rate\"") && error.contains("my.toml"),
        "{error}"
    );
    let sources = Sources {
        files: vec![dir.path().join("none.toml")],
        ..Sources::default()
    };
    assert!(
        Config::load(&sources)
            .unwrap_err()
            .to_string()
            .contains("check the path given to --config")
    );
}

#[test]
fn every_preset_in_configs_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let sources = Sources {
                files: vec![path.clone()],
                ..Sources::default()
            };
            Config::load(&sources).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_digest_covers_rows_and_windows_only() {
    let base = load(&[], &[]).unwrap().digest();
    assert_eq!(
        load(&["learner.lr=1e-5", "actor.count=9"], &[])
            .unwrap()
            .digest(),
        base
    );
    for set in [
        "rules.history=2",
        "learner.gamma=0.8",
        "data.landmarks=[\"AC\"]",
        "data.resample_mm=1.0",
    ] {
        assert_ne!(load(&[set], &[]).unwrap().digest(), base, "{set}");
    }
}

#[test]
fn relative_paths_of_a_saved_configuration_count_from_the_folder_of_the_run() {
    let began = tempfile::tempdir().unwrap();
    let at = |name: &str| began.path().join(name);
    std::fs::write(at("images.txt"), "").unwrap();
    std::fs::write(
        at("config.toml"),
        "[data]\ntrain_images = \"images.txt\"\ntrain_landmarks = \"gone.txt\"\n\
         validation_images = \"/v.txt\"\n[run]\nname = \"images.txt\"\n",
    )
    .unwrap();
    let data = |folder: Option<PathBuf>, set: &[&str]| {
        let sources = Sources {
            saved: vec![Saved {
                file: at("config.toml"),
                folder,
            }],
            set: set.iter().map(ToString::to_string).collect(),
            ..Sources::default()
        };
        Config::load(&sources).unwrap()
    };
    let placed = data(Some(began.path().to_owned()), &[]);
    assert_eq!(Path::new(&placed.data.train_images), at("images.txt"));
    // A run that was moved with its data finds them from the current folder.
    assert_eq!(placed.data.train_landmarks, "gone.txt");
    assert_eq!(placed.data.validation_images, "/v.txt");
    assert_eq!(placed.run.name, "images.txt", "a name is no path");
    assert_eq!(data(None, &[]).data.train_images, "images.txt");
    let given = ["data.train_images=images.txt"];
    let given = data(Some(began.path().to_owned()), &given);
    assert_eq!(given.data.train_images, "images.txt", "given now and here");
}
