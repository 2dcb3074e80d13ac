//! Command lines of the original programs, as typed by their users.

use std::fmt::Write as _;

use common::imaging::landmark_file::LandmarkFile;

use crate::fixtures::{random_weights, rules};
use crate::process::{Bench, Done, errors_as_before};

/// Everything small; what the flags say still wins.
const SMALL: [(&str, &str); 17] = [
    ("RULES__WINDOW_SIZE", "12"),
    ("RULES__SCALES", "[[2,3],[1,1]]"),
    ("RULES__MAX_STEPS", "30"),
    ("ACTOR__SLOTS", "4"),
    ("ACTOR__COUNT", "1"),
    ("ACTOR__START_NEAR_RADIUS", "[8.0,4.0]"),
    ("ACTOR__BATCH_ROWS", "16"),
    ("ACTOR__BATCH_WAIT_MS", "20"),
    ("REPLAY__CAPACITY", "4000"),
    ("REPLAY__MIN_ROWS", "64"),
    ("REPLAY__ERROR_BUFFER", "400"),
    ("LEARNER__BATCH", "16"),
    ("LEARNER__UPDATES", "4"),
    ("LEARNER__DEVICE", "cpu"),
    ("VALIDATION__PERIOD", "4"),
    ("VALIDATION__STARTS", "1"),
    ("CHECKPOINT__PERIOD", "4"),
];

/// Phantoms with fifteen brain landmarks and six cardiac ones, listed as the
/// originals list them: relative to the folder in which the program runs.
fn data(bench: &Bench) {
    bench.phantoms();
    let (mut images, mut brain, mut cardiac) = (String::new(), String::new(), String::new());
    for number in 1..=2 {
        let scan = format!("data/train/images/phantom_{number:04}.nii.gz");
        let table = bench.path(&format!("data/train/landmarks/phantom_{number:04}.csv"));
        let file = LandmarkFile::read(&table).unwrap();
        let image = common::imaging::nifti_io::read(
            &bench.path(&scan),
            &common::imaging::nifti_io::Limits::default(),
        );
        let affine = *image.unwrap().affine();
        let names = [
            "bridge",
            "left_horn",
            "right_horn",
            "base_ball",
            "stem_pole",
        ];
        let (mut text, mut vtk) = (String::new(), String::new());
        for index in 0..15 {
            let world = file.find(names[index % 5]).unwrap().point.position.unwrap();
            // Brain files hold whole voxels; never the same one twice.
            let mut voxel = affine.to_voxel(world).unwrap().map(f64::round);
            voxel[index % 3] += (index / 5) as f64;
            writeln!(text, "{},{},{}", voxel[0], voxel[1], voxel[2]).unwrap();
            if index < 6 {
                let [x, y, z] = affine.to_world(voxel);
                write!(
                    vtk,
                    "{x} {y} {z}{}",
                    if index % 3 == 2 { "\n" } else { " " }
                )
                .unwrap();
            }
        }
        bench.write(&format!("data/brain_{number}.txt"), text);
        let head =
            "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n";
        bench.write(
            &format!("data/cardiac_{number}.vtk"),
            format!("{head}{vtk}\n"),
        );
        writeln!(images, "./{scan}").unwrap();
        writeln!(brain, "./data/brain_{number}.txt").unwrap();
        writeln!(cardiac, "./data/cardiac_{number}.vtk").unwrap();
    }
    bench.write("data/filenames/image_files.txt", images);
    bench.write("data/filenames/landmark_files.txt", brain);
    bench.write("data/filenames/cardiac_files.txt", cardiac);
}

/// Runs an original line; IMAGES, LANDMARKS and MODEL as in the list.
fn run(bench: &Bench, line: &str) -> Done {
    let line = line
        .replace("IMAGES", "./data/filenames/image_files.txt")
        .replace("LANDMARKS", "./data/filenames/landmark_files.txt")
        .replace("CARDIAC", "./data/filenames/cardiac_files.txt")
        .replace('\'', "");
    let mut command = bench.command(&line);
    for (key, value) in SMALL {
        command.env(format!("LANDMARL__{key}"), value);
    }
    let output = command.output().unwrap();
    let done = Done {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert_eq!(done.code, Some(0), "{line}\n{}\n{}", done.out, done.err);
    done
}

#[test]
fn training_lines_run_as_written() {
    let bench = Bench::new();
    data(&bench);
    let table = [
        (
            "--task train --gpu 0 --files './data/filenames/image_files.txt' './data/filenames/landmark_files.txt'",
            "--landmarks 13,14",
        ),
        (
            "--task train --files IMAGES LANDMARKS --agents 2 --logDir runs --name dev --saveGif --saveVideo",
            "--run-dir runs --name dev",
        ),
        (
            "--task train --files IMAGES LANDMARKS --model_name CommNet --file_type brain --landmarks 13 14 0 1 2 --multiscale --viz 0 --train_freq 50 --write",
            "--landmarks 13,14,0,1,2",
        ),
        (
            "--task train --files IMAGES CARDIAC --val_files IMAGES CARDIAC --file_type cardiac --landmarks 4 5 --batch_size 32 --memory_size 1e4 --init_memory_size 1e3 --discount 0.9 --lr 1e-3 --steps_per_episode 100 --max_episodes 50 --seed 1 --team_reward mean --attention",
            "--set learner.max_episodes=50 --set run.seed=1 --set learner.gamma=0.9 --set learner.lr=0.001 --set learner.updates=782",
        ),
        (
            "--task train --files IMAGES LANDMARKS --agents 3 --reward_strategy 6 --algo DuelingDouble --name lines",
            "rules.strategy=\"own_lines\"",
        ),
    ];
    for (line, becomes) in table {
        let done = run(&bench, line);
        assert!(
            done.err.contains("running: landmarl train "),
            "{}",
            done.err
        );
        assert!(
            done.err.contains(becomes),
            "{becomes} is not in {}",
            done.err
        );
        if line.contains("--gpu 0") && model::device::cuda().is_err() {
            assert!(
                done.err.contains("note: --gpu 0: there is no GPU"),
                "{}",
                done.err
            );
        }
        if line.contains("--saveGif") {
            assert!(done.err.contains("note: --saveGif"), "{}", done.err);
        }
    }
    assert!(bench.path("runs/dev/checkpoints").is_dir());
}

#[test]
fn evaluating_and_playing_lines_run_as_written() {
    let bench = Bench::new();
    data(&bench);
    random_weights(&bench, &rules(12));
    // Weights of landmarks that are there.
    let names = |line: &str| line.replace("MODEL", "weights.safetensors");
    bench.write(
        "data/filenames/landmark_files.txt",
        "./data/train/landmarks/phantom_0001.csv\n./data/train/landmarks/phantom_0002.csv\n",
    );
    run(
        &bench,
        &names("--task eval --gpu 0 --load MODEL --files IMAGES LANDMARKS"),
    );
    let table = std::fs::read_to_string(bench.path("runs/eval/results.csv")).unwrap();
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap(),
        "number,Filename 0,Agent 0 pos x,Agent 0 pos y,Agent 0 pos z,Landmark 0 pos x,Landmark 0 pos y,\
         Landmark 0 pos z,Distance 0,Filename 1,Agent 1 pos x,Agent 1 pos y,Agent 1 pos z,\
         Landmark 1 pos x,Landmark 1 pos y,Landmark 1 pos z,Distance 1"
    );
    assert_eq!(lines.count(), 2 * 19, "{table}");
    run(
        &bench,
        &names("--task play --gpu 0 --load MODEL --files IMAGES"),
    );
    let played = std::fs::read_to_string(bench.path("runs/play/results.csv")).unwrap();
    assert!(played.contains("N/A,N/A,N/A,N/A"), "{played}");
    let line = "--task eval --load MODEL --files IMAGES LANDMARKS --file_type brain --landmarks 13 14 0 --model_name CommNet --fixed_spawn 0.5 0.5 0.5 --name spawned";
    run(&bench, &names(line));
    let spawned = std::fs::read_to_string(bench.path("runs/spawned/results.csv")).unwrap();
    assert_eq!(spawned.lines().count(), 3, "{spawned}");
}

#[test]
fn what_the_originals_took_and_we_do_not_is_said() {
    let bench = Bench::new();
    data(&bench);
    let lists = "--files data/filenames/image_files.txt data/filenames/landmark_files.txt";
    bench.write("model-600000.index", "x");
    let fails = [
        (
            format!("--task eval --load model-600000 {lists}"),
            4,
            "is a TensorFlow checkpoint",
        ),
        (
            format!("--task eval --load data/models/model-350000 {lists}"),
            4,
            "is a TensorFlow checkpoint",
        ),
        (
            format!("--task eval {lists}"),
            2,
            "--task eval needs --load MODEL",
        ),
        (
            "--task train --files data/filenames/image_files.txt".to_owned(),
            2,
            "takes two lists",
        ),
        (
            format!("--task train {lists} --agents 9"),
            2,
            "name them with --landmarks",
        ),
        (
            format!("--task train {lists} --reward_strategy 7"),
            2,
            "1 to 6",
        ),
        (
            format!("--task train {lists} --landmarks 13 14 --agents 3"),
            2,
            "--landmarks names 2",
        ),
        (format!("--task train {lists} --landmarks 40"), 4, "40"),
        (
            format!("--task train {lists} --batch_size 1.5"),
            2,
            "a whole number",
        ),
        (
            format!("--task train {lists} --load best.pt"),
            2,
            "does not begin from weights",
        ),
    ];
    for (line, code, words) in fails {
        bench.fail(&line, code, &[words]);
    }
    errors_as_before("original");
}
