#!/usr/bin/env bash
# The whole path on the embedded miniature, on a CPU: data, base models, teacher, three students, six benchmarks,
# one table. Every step is skipped when its result is there; delete playground/mini/runs to train again.
#
#   bash scripts/demo.sh            the full miniature
#   QUICK=1 bash scripts/demo.sh    the same path on a hundredth of the data, in folders of its own: shows that it runs,
#                                   not what it learns
#
# Environment: MINI (the data: playground/mini/build), CHECKPOINTS (the models: playground/mini/runs).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PRESET=mini PYTHON=${PYTHON:-$PWD/.venv/bin/python} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
HOME_OF_ALL=playground/mini${QUICK:+/quick}
export MINI=${MINI:-$HOME_OF_ALL/build} CHECKPOINTS=${CHECKPOINTS:-$HOME_OF_ALL/runs}
BUILD_FLAGS=() BASE_FLAGS=()
if [[ -n ${QUICK:-} ]]; then
    BUILD_FLAGS=(--scenes 48 --samples-per-scene 4 --pretrain-scenes 64 --text-documents 400 --word-scenes 48
        --held-out-scenes 16 --eval-scale 0.02)
    BASE_FLAGS=(--tower-epochs 1)
fi
STARTED=$SECONDS

# step NAME RESULT COMMAND...: run COMMAND unless RESULT is there; the log goes to $CHECKPOINTS/logs/NAME.log as well.
# RESULT may be "" for a command that sees by itself what is done.
mkdir -p "$CHECKPOINTS/logs"
step() {
    local name=$1 result=$2 started=$SECONDS; shift 2
    if [[ -n $result && -e $result ]]; then echo "== $name: done before ($result)"; return; fi
    echo "== $name"
    "$@" 2>&1 | tee "$CHECKPOINTS/logs/$name.log"
    echo "== $name: $((SECONDS - started)) s"
    echo "$name $((SECONDS - started))" >> "$CHECKPOINTS/logs/seconds.txt"
}

step data "" "$PYTHON" -m playground.mini.build --out "$MINI" "${BUILD_FLAGS[@]}"
# Models that were trained on other data are not mixed with these.
DATA=$(sed -n 's/.*"contents": "\(.*\)".*/\1/p' "$MINI/manifest.json")
for trained in "$MINI/models" "$CHECKPOINTS"; do
    if [[ -e $trained/data.txt && $(<"$trained/data.txt") != "$DATA" ]]; then
        echo "error: the models in $trained were trained on other data than $MINI has now; to train them again:" \
            "rm -r $MINI/models $CHECKPOINTS" >&2
        exit 2
    fi
    mkdir -p "$trained" && echo "$DATA" > "$trained/data.txt"
done

step base-models "$MINI/models/figures.json" "$PYTHON" -m playground.mini.base_models --data "$MINI" "${BASE_FLAGS[@]}"

step teacher-words "$CHECKPOINTS/teacher-words/trainer_state.json" bash playground/mini/words.sh teacher
step teacher-pretrain "$CHECKPOINTS/teacher-pretrain/trainer_state.json" bash scripts/teacher/pretrain.sh
step teacher "$CHECKPOINTS/teacher/trainer_state.json" bash scripts/teacher/finetune.sh
step student-words "$CHECKPOINTS/student-words/trainer_state.json" bash playground/mini/words.sh student
step student-pretrain "$CHECKPOINTS/student-pretrain/trainer_state.json" bash scripts/student/pretrain.sh
step student-sft "$CHECKPOINTS/student-sft/trainer_state.json" bash scripts/distill/sft.sh
step student-vanilla-kd "$CHECKPOINTS/student-vanilla-kd/trainer_state.json" bash scripts/distill/vanilla_kd.sh
step student-align-ti "$CHECKPOINTS/student-align-ti/trainer_state.json" bash scripts/distill/align_ti.sh

export EVAL_ROOT=$MINI/eval BATCH_SIZE=64
for model in teacher student-sft student-vanilla-kd student-align-ti; do
    export OUTPUT_DIR=$CHECKPOINTS/eval/$model
    step "eval-$model" "$OUTPUT_DIR/scores.json" bash scripts/eval/all.sh "$CHECKPOINTS/$model"
done

"$PYTHON" -m playground.mini.report --build "$MINI" --runs "$CHECKPOINTS"
echo "== all done in $((SECONDS - STARTED)) s"
