#!/bin/sh
# Made these files with the programs of version 0.1.0 (commit 9ce0957), in an empty folder.
set -e
landmarl phantom --out data --train 2 --selection 1 --test 1 --size 48x56x48 --seed 3
landmarl train --run-dir runs --name old --updates 20 --device cpu --actors 1 \
    --train-images data/train/images.txt --train-landmarks data/train/landmarks.txt \
    --selection-images data/selection/images.txt --selection-landmarks data/selection/landmarks.txt \
    --landmarks bridge,base_ball --set rules.window_size=12 --set rules.scales=[[2,3],[1,1]] \
    --set rules.max_steps=30 --set actor.slots=4 --set actor.start_near_radius=[8.0,4.0] \
    --set actor.batch_rows=16 --set actor.batch_wait_ms=20 --set replay.capacity=400 \
    --set replay.min_rows=64 --set replay.tolerance=200 --set replay.shards=1 \
    --set learner.batch=16 --set learner.publish_every=5 --set cluster.lease_s=1 \
    --set validation.every=10 --set validation.starts=1 --set checkpoint.every=10 \
    --set checkpoint.keep=1 --set evaluation.starts=2 --set network.hidden=[8]
# Kept of runs/old: config.toml, run.json, metrics.jsonl, validation.jsonl, mean_landmarks.json,
# checkpoints/best.safetensors and last.safetensors, replay/shard-0.
