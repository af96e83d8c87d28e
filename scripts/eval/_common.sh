# Shared by the evaluation scripts.
#
#   bash scripts/eval/all.sh CHECKPOINT [flags of llava.eval.run]
#
# Environment: EVAL_ROOT (the benchmarks; `python -m llava.prepare benchmarks` gets them), OUTPUT_DIR (answers and
# scores), CONV_MODE (prompt template; by default the one the checkpoint was tuned with), BATCH_SIZE,
# CUDA_VISIBLE_DEVICES (one process for each; all GPUs if not set, the CPU if empty), PYTHON.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -z "${PYTHON:-}" && -x "$REPO/.venv/bin/python" ]]; then PYTHON=$REPO/.venv/bin/python; fi
PYTHON=${PYTHON:-python}
export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}"

visible_gpus() {
    if [[ -n "${CUDA_VISIBLE_DEVICES+set}" ]]; then
        echo "${CUDA_VISIBLE_DEVICES//,/ }"
    elif command -v nvidia-smi >/dev/null 2>&1; then
        nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | tr '\n' ' ' || true
    fi
}
read -r -a GPUS <<< "$(visible_gpus)"

# on_every_gpu COMMAND...: a process of COMMAND on each of GPUS, with its --num-chunks and --chunk-idx.
on_every_gpu() {
    local index failed=0
    local -a pids=()
    trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
    for index in "${!GPUS[@]}"; do
        CUDA_VISIBLE_DEVICES=${GPUS[$index]} "$@" --num-chunks "${#GPUS[@]}" --chunk-idx "$index" &
        pids+=($!)
    done
    for index in "${!pids[@]}"; do
        wait "${pids[$index]}" || { echo "error: the process on GPU ${GPUS[$index]} failed" >&2; failed=1; }
    done
    (( failed == 0 )) || exit 1
}

# evaluate BENCHMARK CHECKPOINT FLAGS...
evaluate() {
    local benchmark=$1 checkpoint=${2:-}
    if [[ -z $checkpoint || $checkpoint == -* ]]; then
        echo "usage: bash $0 CHECKPOINT [flags of llava.eval.run]" >&2
        exit 2
    fi
    shift 2
    local output=${OUTPUT_DIR:-}
    if [[ -z $output ]]; then
        if [[ -d $checkpoint ]]; then output=$checkpoint/eval; else output=$REPO/playground/data/runs/${checkpoint##*/}; fi
    fi
    local -a run=("$PYTHON" -m llava.eval.run --benchmark "$benchmark" --model-path "$checkpoint"
        --eval-root "${EVAL_ROOT:-$REPO/playground/data/eval}" --output-dir "$output"
        ${CONV_MODE:+--conv-mode "$CONV_MODE"} --batch-size "${BATCH_SIZE:-8}" "$@")
    if (( ${#GPUS[@]} <= 1 )); then
        "${run[@]}"
        return
    fi
    on_every_gpu "${run[@]}" --stage generate
    "${run[@]}" --stage score --num-chunks "${#GPUS[@]}"
}
