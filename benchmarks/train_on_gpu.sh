#!/usr/bin/env bash
# Train three seeds of the reference model and the large one beside each other on one GPU, each with a tower of its own.
#
# Writes to OUT what exporting needs: the finished stages and logs, without the pictures' features. A model is made of
# OUT/seed-1 by `python -m tools.reference.train --seed 1 --work OUT/seed-1 --out DIR`, anywhere.
# The four share the GPU better where NVIDIA's MPS daemon runs (nvidia-cuda-mps-control -d). Each needs 7 GB of its
# memory for features and 4 for a step, and 150 MB of /dev/shm.
# Usage: benchmarks/train_on_gpu.sh OUT [WORK [WORKERS]]
set -euo pipefail
out=${1:?usage: benchmarks/train_on_gpu.sh OUT [WORK [WORKERS]]} work=${2:-.training-gpu} workers=${3:-3}
python=${PYTHON:-python}
mkdir -p "$out" "$work"

train() { # name, options
  local name=$1
  shift
  "$python" -m tools.reference.train --work "$work/$name" --device cuda --workers "$workers" --until joint "$@" \
    >"$work/$name.txt" 2>&1 || { tail -20 "$work/$name.txt"; return 1; }
}

keep() { # name
  mkdir -p "$out/$1"
  cp "$work/$1"/{joint.pt,tower.pt,tokenizer.json,recipe.json,log.jsonl} "$out/$1/"
}

jobs=()
for seed in 0 1 2; do
  train "seed-$seed" --seed "$seed" & jobs+=($!)
done
train large --size large & jobs+=($!)
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
for name in seed-0 seed-1 seed-2 large; do keep "$name" || failed=1; done
exit $failed
