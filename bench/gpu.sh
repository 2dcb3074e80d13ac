#!/usr/bin/env bash
# What landmarl does on a GPU machine that has no Rust: checks, speed against PyTorch, training.
# `cargo xtask bench gpu` builds what it needs; without arguments it prints its usage.
set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/gpu.sh BIN_DIR DATA_DIR OUT_DIR [PART...]

BIN_DIR holds landmarl, updates and device_check, as `cargo xtask bench gpu --pack DIR` leaves them in
DIR/bin. DATA_DIR holds mouse/train and mouse/val, each with images.txt and landmarks.txt. Logs, JSON
and runs go to OUT_DIR. Needs bash, timeout, and a python3 with the CUDA build of torch 2.11.

Parts, all three unless named:
  checks  landmarl doctor, device_check (renderer bit-equal, NCCL with one rank)
  speed   updates/s in f32 and bf16, ours and bench/learner_loop.py in turns; the card's ceilings
  train   configs/mouse.toml and configs/mouse-all.toml at the same time, then 19 starts on mouse/val

Variables: MINUTES of training (8), BATCH (128), UPDATES (100) timed after WARMUP (10), TURNS of the
comparison (2), THREADS (2), DEVICE (cuda), PYTHON (python3), STEP_SECONDS that a check or a speed
figure may take (120), EVAL_SECONDS (300), CONFIGS (mouse mouse-all), TRAIN_ARGS (more for `landmarl train`).

A step that fails does not stop the others; the exit code is then 1.

Examples:
  bench/gpu.sh bin ../shared/data out
  bench/gpu.sh bin ../shared/data out checks speed
  MINUTES=4 TRAIN_ARGS="--actors 8" bench/gpu.sh bin ../shared/data out train
END
}

if [ $# -lt 3 ]; then
    usage
    if [ $# -eq 0 ] || [ "$1" = --help ] || [ "$1" = -h ]; then exit 0; fi
    exit 2
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$(cd "$1" && pwd)
data=$(cd "$2" && pwd)
mkdir -p "$3"
out=$(cd "$3" && pwd)
shift 3
parts=("$@")
[ $# -gt 0 ] || parts=(checks speed train)
for part in "${parts[@]}"; do
    case $part in checks | speed | train) ;; *)
        echo "no such part: $part (checks, speed or train)" >&2
        exit 2
        ;;
    esac
done

minutes=${MINUTES:-8}
batch=${BATCH:-128}
updates=${UPDATES:-100}
warmup=${WARMUP:-10}
turns=${TURNS:-2}
threads=${THREADS:-2}
device=${DEVICE:-cuda}
python=${PYTHON:-python3}
step_seconds=${STEP_SECONDS:-120}
eval_seconds=${EVAL_SECONDS:-300}
read -r -a configs <<<"${CONFIGS:-mouse mouse-all}"
read -r -a train_args <<<"${TRAIN_ARGS:-}"

# The binaries were linked against the CPU part of libtorch, at a path of the machine that built
# them. Here they find it in the folder of Python's torch, and in that folder, too, the CUDA part,
# which they load themselves when a GPU is asked for (model/src/device.rs).
if ! libtorch=$("$python" -c 'import torch, os; print(os.path.dirname(torch.__file__) + "/lib")'); then
    echo "$python has no torch: install torch 2.11 with CUDA, or name another with PYTHON" >&2
    exit 1
fi
export LD_LIBRARY_PATH="$libtorch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LANDMARL_LIBTORCH="$libtorch"

: >"$out/steps.txt"

# step NAME SECONDS COMMAND...: standard output to NAME.out, all other to NAME.log; never fails, but
# prints and records the result.
step() {
    local name=$1 seconds=$2 begin=$SECONDS code=0 word
    shift 2
    printf '== %s: %s\n' "$name" "$*"
    # -k: a process that ignores the signal is killed.
    timeout -k 10 "$seconds" "$@" >"$out/$name.out" 2>"$out/$name.log" || code=$?
    case $code in
    0) word=ok ;;
    124 | 137) word="stopped after $seconds s" ;;
    *) word="failed with $code" ;;
    esac
    # One short write per step: steps that run at the same time do not mix lines.
    printf '%s\t%s\t%s s\n' "$name" "$word" "$((SECONDS - begin))" >>"$out/steps.txt"
    if [ "$word" != ok ]; then
        printf '   %s: %s\n' "$name" "$word"
        tail -n 5 "$out/$name.log" | sed 's/^/   | /'
    fi
    return 0
}

# keep NAME: adds the JSON lines that the step printed to speed.jsonl, with the step's name.
keep() {
    sed -n "s/^{/{\"step\":\"$1\",/p" "$out/$1.out" | tee -a "$out/speed.jsonl"
}

ours() {
    local name=$1
    shift
    step "$name" "$step_seconds" "$bin/updates" --device "$device" --batch "$batch" \
        --updates "$updates" --warmup "$warmup" --threads "$threads" --agents 2 "$@"
    keep "$name"
}

loop() {
    local name=$1
    shift
    step "$name" "$step_seconds" "$python" "$here/bench/learner_loop.py" --device "$device" \
        --batch "$batch" --updates "$updates" --warmup "$warmup" --threads "$threads" --agents 2 "$@"
    keep "$name"
}

checks() {
    step doctor "$step_seconds" "$bin/landmarl" doctor
    step device_check "$step_seconds" "$bin/device_check" --device "$device"
    cat "$out/doctor.out" "$out/device_check.out"
}

speed() {
    : >"$out/speed.jsonl"
    loop ceiling --ceiling
    local precision turn
    for precision in f32 bf16; do
        for turn in $(seq "$turns"); do
            ours "updates-$precision-$turn" --precision "$precision"
            loop "loop-$precision-$turn" --precision "$precision"
        done
    done
    # What a hand-tuned script gains over the plain one.
    loop loop-bf16-channels-last --precision bf16 --channels-last
    for precision in f32 bf16; do
        ours "updates-small-$precision" --precision "$precision" --preset small
    done
    for precision in f32 bf16; do
        loop "act-$precision" --act --precision "$precision"
    done
}

train_one() {
    local name=$1
    # Starting, loading scans and writing the last checkpoint are not in the minutes.
    local limit
    limit=$(awk -v m="$minutes" 'BEGIN { print int(m * 60 + 180) }')
    step "train-$name" "$limit" "$bin/landmarl" train --config "$here/configs/$name.toml" \
        --set "learner.max_minutes=$minutes" \
        --set "data.train_images=$data/mouse/train/images.txt" \
        --set "data.train_landmarks=$data/mouse/train/landmarks.txt" \
        --set "run.dir=$out/runs" --set "run.name=$name" --device "$device" --json \
        ${train_args[@]+"${train_args[@]}"}
    # Results of an earlier try must not pass for this one's.
    rm -rf "$out/eval-$name"
    step "eval-$name" "$eval_seconds" "$bin/landmarl" eval \
        --load "$out/runs/$name/checkpoints/last.safetensors" \
        --images "$data/mouse/val/images.txt" \
        --landmarks-files "$data/mouse/val/landmarks.txt" \
        --protocol 19 --no-pictures --json --device "$device" --out "$out/eval-$name"
}

train() {
    local name
    for name in "${configs[@]}"; do
        # A run folder of an earlier try would be refused; its logs are worth keeping.
        if [ -e "$out/runs/$name" ]; then
            mv "$out/runs/$name" "$out/runs/$name.before-$(date +%s)"
        fi
        train_one "$name" &
    done
    wait
}

# The figures that matter, from the JSON that the steps left; nothing if there is none.
figures() {
    "$python" - "$out" <<'END'
import collections, glob, json, os, statistics, sys

out = sys.argv[1]
kept = collections.defaultdict(list)
ceiling, path = {}, os.path.join(out, "speed.jsonl")
for line in open(path, encoding="utf-8") if os.path.exists(path) else []:
    try:
        found = json.loads(line)
    except ValueError:
        continue
    if found.get("side") == "ceiling":
        ceiling = found
        words = [f"{k} {v:.1f}" for k, v in found.items() if k.endswith(("tflops", "per_s")) and v]
        print(f"ceiling of {found.get('device_name')}: " + ", ".join(words))
    elif "ms_per_window" in found:
        print(f"acting, PyTorch {found['precision']}: {found['ms_per_window']:.2f} ms per window")
    elif "ms_per_update" in found:
        kind = "small" if "small" in found["step"] else "channels last" if found.get("channels_last") else ""
        kept[found["side"], found.get("precision", "?"), kind].append(found)
flops = {key[1]: run["gflop_per_update"] for key, runs in kept.items() if key[0] == "pytorch"
         for run in runs if run.get("gflop_per_update")}
for (side, precision, kind), runs in kept.items():
    ms = statistics.median(run["ms_per_update"] for run in runs)
    words = f"{side} {precision} {kind}: {ms:.2f} ms per update, {1000 / ms:.1f} updates/s"
    gflop = runs[0].get("gflop_per_update") or (flops.get(precision) if side == "pytorch" else None)
    top = ceiling.get("tf32_tflops" if precision == "f32" and ceiling.get("tf32_tflops")
                      and ceiling.get("cudnn_allow_tf32") else f"{precision}_tflops")
    if gflop:
        words += f", {gflop / ms:.1f} TFLOP/s" + (f" ({100 * gflop / ms / top:.0f} % of the ceiling)" if top else "")
    theirs = kept.get(("pytorch", precision, ""))
    if side != "pytorch" and theirs and not kind:
        words += f", {statistics.median(r['ms_per_update'] for r in theirs) / ms:.2f} times PyTorch"
    print(words.replace(" :", ":") + f", on {runs[0].get('device')}")
for path in sorted(glob.glob(os.path.join(out, "eval-*", "summary.json"))):
    try:
        found = json.load(open(path, encoding="utf-8"))
    except ValueError:
        continue
    whole = found.get("all") or {}
    words = {"mean mm": found.get("mean_error_mm"), "mean voxels": found.get("mean_error_voxels"),
             "median mm": whole.get("median_mm"), "baseline mm": found.get("baseline_error_mm")}
    name = os.path.basename(os.path.dirname(path))
    print(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in words.items() if v is not None))
END
}

for part in "${parts[@]}"; do
    echo "=== $part"
    "$part"
done

{
    echo "=== figures, of parts run before into the same folder too"
    figures || echo "the figures cannot be read"
    echo "=== steps"
    cat "$out/steps.txt"
} 2>&1 | tee "$out/summary.txt"

# What did not go well is in steps.txt, even from steps that ran in the background.
if cut -f 2 "$out/steps.txt" | grep -qvx ok; then
    echo "not everything went well; logs: $out"
    exit 1
fi
