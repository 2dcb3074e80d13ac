//! Command lines of the original programs, as typed by their users.

use std::fmt::Write as _;

use common::imaging::landmark_file::LandmarkFile;
use common::imaging::nifti_io::{Limits, read};

use crate::fixtures::{random_weights, rules};
use crate::process::{Bench, Done, assert_contains, check_error_snapshot, finish};
use crate::run::SMALL;

/// Everything small, beside the settings of [`SMALL`]; flags have precedence.
const SMALLER: &str = "actor.count=1 replay.capacity=4000 replay.error_buffer=400 learner.updates=4 \
    learner.device=cpu validation.period=100 checkpoint.period=100";

/// Phantoms with fifteen brain landmarks and six cardiac ones, listed as the
/// originals list them: relative to the folder in which the program runs.
fn data(bench: &Bench) {
    bench.phantoms();
    let (mut images, mut brain, mut cardiac) = (String::new(), String::new(), String::new());
    for number in 1..=2 {
        let scan = format!("data/train/images/phantom_{number:04}.nii.gz");
        let table = bench.path(&format!("data/train/landmarks/phantom_{number:04}.csv"));
        let file = LandmarkFile::read(&table).unwrap();
        let image = read(&bench.path(&scan), &Limits::default()).unwrap();
        let affine = *image.affine();
        let names = "bridge left_horn right_horn base_ball stem_pole";
        let names: Vec<&str> = names.split(' ').collect();
        let (mut text, mut vtk) = (String::new(), String::new());
        for index in 0..15 {
            let world = file.find(names[index % 5]).unwrap().point.position.unwrap();
            // Brain files hold whole voxels; never the same one twice.
            let mut voxel = affine.to_voxel(world).unwrap().map(f64::round);
            voxel[index % 3] += (index / 5) as f64;
            writeln!(text, "{},{},{}", voxel[0], voxel[1], voxel[2]).unwrap();
            if index < 6 {
                let [x, y, z] = affine.to_world(voxel);
                let end = if index % 3 == 2 { "\n" } else { " " };
                write!(vtk, "{x} {y} {z}{end}").unwrap();
            }
        }
        bench.write(&format!("data/brain_{number}.txt"), text);
        let head =
            "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n";
        let vtk = format!("{head}{vtk}\n");
        bench.write(&format!("data/cardiac_{number}.vtk"), vtk);
        writeln!(images, "./{scan}").unwrap();
        writeln!(brain, "./data/brain_{number}.txt").unwrap();
        writeln!(cardiac, "./data/cardiac_{number}.vtk").unwrap();
    }
    bench.write("data/filenames/image_files.txt", images);
    bench.write("data/filenames/landmark_files.txt", brain);
    bench.write("data/filenames/cardiac_files.txt", cardiac);
}

/// Runs an original line; IMAGES, LANDMARKS, CARDIAC and MODEL stand for files.
fn run(bench: &Bench, line: &str) -> Done {
    let line = line
        .replace("IMAGES", "./data/filenames/image_files.txt")
        .replace("LANDMARKS", "./data/filenames/landmark_files.txt")
        .replace("CARDIAC", "./data/filenames/cardiac_files.txt")
        .replace("MODEL", "weights.safetensors")
        .replace('\'', "");
    let mut command = bench.command(&line);
    let small = SMALL.split("--set ").skip(1).map(str::trim);
    for setting in small.chain(SMALLER.split(' ')) {
        let (key, value) = setting.split_once('=').unwrap();
        let key = key.to_uppercase().replace('.', "__");
        command.env(format!("LANDMARL__{key}"), value);
    }
    let done = finish(command.output().unwrap());
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
            "--task train --files IMAGES CARDIAC --val_files IMAGES CARDIAC --file_type cardiac --landmarks 4 5 --batch_size 32 --memory_size 1e4 --init_memory_size 2e2 --discount 0.9 --lr 1e-3 --steps_per_episode 100 --max_episodes 10 --seed 1 --team_reward mean --attention",
            "--set learner.max_episodes=10 --set run.seed=1 --set learner.gamma=0.9 --set learner.lr=0.001 --set learner.updates=157",
        ),
        (
            "--task train --files IMAGES LANDMARKS --agents 3 --reward_strategy 6 --algo DuelingDouble --name lines",
            "rules.strategy=\"own_lines\"",
        ),
    ];
    for (line, becomes) in table {
        let done = run(&bench, line);
        assert_contains(&done.err, "running: landmarl train ");
        assert_contains(&done.err, becomes);
        if line.contains("--gpu 0") && model::device::cuda().is_err() {
            assert_contains(&done.err, "note: --gpu 0: there is no GPU");
        }
        if line.contains("--saveGif") {
            assert_contains(&done.err, "note: --saveGif");
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
    let tables = [1, 2].map(|n| format!("./data/train/landmarks/phantom_000{n}.csv\n"));
    bench.write("data/filenames/landmark_files.txt", tables.concat());
    let eval = "--task eval --load MODEL --files IMAGES LANDMARKS";
    run(&bench, &format!("{eval} --gpu 0"));
    let table = bench.text("runs/eval/results.csv");
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap(),
        "number,Filename 0,Agent 0 pos x,Agent 0 pos y,Agent 0 pos z,Landmark 0 pos x,Landmark 0 pos y,\
         Landmark 0 pos z,Distance 0,Filename 1,Agent 1 pos x,Agent 1 pos y,Agent 1 pos z,\
         Landmark 1 pos x,Landmark 1 pos y,Landmark 1 pos z,Distance 1"
    );
    assert_eq!(lines.count(), 2 * 19, "{table}");
    run(&bench, "--task play --gpu 0 --load MODEL --files IMAGES");
    assert_contains(&bench.text("runs/play/results.csv"), "N/A,N/A,N/A,N/A");
    let more = "--file_type brain --landmarks 13 14 0 --model_name CommNet";
    run(
        &bench,
        &format!("{eval} {more} --fixed_spawn 0.5 0.5 0.5 --name spawned"),
    );
    let spawned = bench.text("runs/spawned/results.csv");
    assert_eq!(spawned.lines().count(), 3, "{spawned}");
}

#[test]
fn flags_of_the_originals_that_are_not_supported_are_refused() {
    let bench = Bench::new();
    data(&bench);
    let lists = "--files data/filenames/image_files.txt data/filenames/landmark_files.txt";
    bench.write("model-600000.index", "x");
    let (eval, train) = ("--task eval", format!("--task train {lists}"));
    bench.failures(&format!(
        "4 {eval} --load model-600000 {lists} => is a TensorFlow checkpoint
         4 {eval} --load data/models/model-350000 {lists} => is a TensorFlow checkpoint
         2 {eval} {lists} => --task eval needs --load MODEL
         2 --task train --files data/filenames/image_files.txt => takes two lists
         2 {train} --agents 9 => with --landmarks
         2 {train} --reward_strategy 7 => 1 to 6
         2 {train} --landmarks 13 14 --agents 3 => --landmarks has 2
         4 {train} --landmarks 40 => 40
         2 {train} --batch_size 1.5 => a whole number
         2 {train} --load best.pt => from weights"
    ));
    check_error_snapshot("original");
}
