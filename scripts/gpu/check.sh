#!/usr/bin/env bash
# All checks that need a GPU, in one go: facts, the gpu tests, the benchmark at the paper's sizes, a profile,
# probes, and a real training with evaluation. README.md in this folder says what to bring and how long it takes.
#
#   bash scripts/gpu/check.sh RESULTS
#   STEPS="facts tests" bash scripts/gpu/check.sh RESULTS        some steps only
#   DRY=1 bash scripts/gpu/check.sh RESULTS                      all of it, small, on a CPU
#
# Each step has its own time limit and log; a failed step does not stop the others. RESULTS/results.tgz is updated after
# every step, so that an interrupted run leaves its results so far.
set -uo pipefail
RESULTS=$(mkdir -p "${1:?a folder for the results is needed}" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo "$PWD/.venv/bin/python" || echo python3)}
BUDGET=${BUDGET:-500} # seconds in all
STEPS=${STEPS:-facts tests compilers bench compiled large profile probe train}
STUFF=${STUFF:-.gpu} # the miniature's models, see README.md
LOGS=$(mktemp -d)
STARTED=$SECONDS
FAILED=()
export PYTHON PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [[ -n ${DRY:-} ]]; then
    BENCH=(--preset miniature --device cpu --rounds 1) SMALL=(--small)
    BUDGET=3000
else
    BENCH=(--preset paper --device cuda --rounds 5) SMALL=()
fi

step() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 left=$((BUDGET - (SECONDS - STARTED))) before=$SECONDS status=0
    shift 2
    [[ " $STEPS " == *" $name "* ]] || return 0
    [[ -n ${DRY:-} ]] && limit=600
    if ((left < 15)); then
        echo "$name: not run, $left s are left" | tee -a "$LOGS/summary.txt"
        return 0
    fi
    timeout --kill-after=5 "$((limit < left ? limit : left))" "$@" >"$LOGS/$name.log" 2>&1 || status=$?
    ((status == 0)) || FAILED+=("$name")
    tail -n 16 "$LOGS/$name.log" | cut -c1-200
    echo "== $name: status $status, $((SECONDS - before)) s" | tee -a "$LOGS/summary.txt"
    tar -C "$LOGS" -czf "$RESULTS/results.new" . && mv "$RESULTS/results.new" "$RESULTS/results.tgz"
}

# Only the files that have gpu tests: collecting all tests needs packages that a GPU machine may lack.
mapfile -t GPU_TESTS < <(grep -rlE "mark\.gpu" tests --include="*.py")
PYTEST=("$PYTHON" -m pytest -o addopts=--import-mode=importlib -p no:cacheprovider -q -m gpu --timeout 120)

step facts 40 "$PYTHON" -m align_ti.studies.gpu.facts
step tests 60 "${PYTEST[@]}" "${GPU_TESTS[@]}" -k "not flex and not compiled"
step compilers 90 "${PYTEST[@]}" "${GPU_TESTS[@]}" -k "flex or compiled"
step bench 120 "$PYTHON" -m align_ti.studies.cost "${BENCH[@]}" --out "$LOGS" --name eager \
    --methods vanilla_kd kd_iva algorithm1 prefix prefix_merged align_ti
step compiled 90 "$PYTHON" -m align_ti.studies.cost "${BENCH[@]}" --out "$LOGS" --name compiled --compile_losses --fuse_layers \
    --packing \
    --methods vanilla_kd kd_iva prefix_merged align_ti align_ti_128
step large 60 "$PYTHON" -m align_ti.studies.cost "${BENCH[@]}" --batch_size 24 --out "$LOGS" --name large --compile_losses --fuse_layers \
    --packing --methods vanilla_kd align_ti align_ti_128
step profile 70 "$PYTHON" -m align_ti.studies.gpu.profile_step "${BENCH[@]:0:4}" --packing --compile_losses --fuse_layers \
    --out "$LOGS"
step probe 90 "$PYTHON" -m align_ti.studies.gpu.probe --out "$LOGS" "${SMALL[@]}"
step train 150 bash scripts/gpu/train.sh "$STUFF" "$LOGS"

echo "---- summary"
cat "$LOGS/summary.txt"
rm -rf "$LOGS"
if ((${#FAILED[@]})); then
    echo "failed: ${FAILED[*]}"
    exit 1
fi
