#!/usr/bin/env bash
# Distil the miniature for real, in float32, bfloat16 and under DeepSpeed where that is installed, and evaluate it.
#
#   bash scripts/gpu/train.sh STUFF LOGS      STUFF holds models/, teacher/ and student-pretrain/ of the miniature
set -euo pipefail
STUFF=$(cd "$1" && pwd) LOGS=$2
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
scenes=300
export NUM_GPUS=1
if [[ -n ${DRY:-} ]]; then
    scenes=48
    export NUM_GPUS=0 CPU_PROCESSES=1
fi
steps=${TRAIN_STEPS:-$([[ -n ${DRY:-} ]] && echo 3 || echo 120)}
few=(--scenes "$scenes" --samples-per-scene 4 --pretrain-scenes 64 --text-documents 400 --word-scenes 48
    --held-out-scenes 16 --eval-scale 0.02)
data=$WORK/data runs=$WORK/runs
"$PYTHON" -m playground.mini.build --out "$data" "${few[@]}" | tail -n 2
cp -r "$STUFF/models" "$data/models"
mkdir -p "$runs" && cp -r "$STUFF/teacher" "$STUFF/student-pretrain" "$runs/"

train() { # NAME FLAGS...
    local name=$1 before=$SECONDS
    shift
    echo "---- $name"
    bash scripts/distill/align_ti.sh --pair mini --data_root "$data" --runs "$runs" --output_dir "$runs/$name" \
        --max_steps "$steps" --save_strategy no --iva_layer 2 --report_to none --disable_tqdm True \
        --per_device_train_batch_size 32 --logging_steps 10 "$@"
    echo "---- $name: $((SECONDS - before)) s, start and end included"
    cp "$runs/$name/trainer_state.json" "$LOGS/$name.json"
}
LAUNCHER=python train student-float32
if [[ -z ${DRY:-} ]]; then
    LAUNCHER=python train student-bf16 --bf16 True
    LAUNCHER=python train student-bf16-packed --bf16 True --packing True --compile_losses True
fi
if "$PYTHON" -c "import deepspeed" 2>/dev/null && [[ -z ${DRY:-} ]]; then
    train student-zero2 --bf16 True --deepspeed scripts/deepspeed/zero2.json
fi
bash scripts/eval/pope.sh "$runs/student-float32" --eval_root "$data/eval" --batch_size 64 --output_dir "$LOGS/pope"
