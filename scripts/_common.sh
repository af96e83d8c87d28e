# Shared by all training scripts: the preset, the device count, the batch arithmetic and the launcher.
#
#   PRESET=mini bash scripts/distill/align_ti.sh            the miniature, on a CPU
#   PRESET=qwen3-8b-0.6b bash scripts/distill/align_ti.sh   one of scripts/presets/*.sh
#   DRY_RUN=1 NUM_GPUS=16 bash scripts/distill/align_ti.sh  the plan: parameters, batch, steps, memory a GPU
#   NUM_GPUS=8 FINETUNE_LR=1e-5 bash ... --max_steps 100    variables override a preset, flags override both
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$REPO"
if [[ -z "${PYTHON:-}" ]]; then
    if [[ -x .venv/bin/python ]]; then PYTHON=$REPO/.venv/bin/python; else PYTHON=python3; fi
fi

fail() { echo "error: $*" >&2; exit 2; }

PRESET=${PRESET:-qwen2-7b-0.5b}
PRESET_FILE=scripts/presets/$PRESET.sh
[[ -f $PRESET_FILE ]] || fail "no preset '$PRESET'; there are: $(cd scripts/presets && ls | grep -v '^_' | sed 's/\.sh$//' | tr '\n' ' ')"
# shellcheck source=/dev/null
source "$PRESET_FILE"
TEACHER=${TEACHER:-$CHECKPOINTS/teacher}

count_gpus() {
    if command -v nvidia-smi >/dev/null 2>&1; then nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true; else echo 0; fi
}
NUM_GPUS=${NUM_GPUS:-$(count_gpus)}
NUM_NODES=${NUM_NODES:-1}
if (( NUM_GPUS == 0 )); then export DS_ACCELERATOR=cpu; fi
PROCESSES=$(( (NUM_GPUS > 0 ? NUM_GPUS : ${CPU_PROCESSES:-1}) * NUM_NODES ))

# batch_flags GLOBAL PER_DEVICE: accumulation steps such that the global batch is GLOBAL, whatever the device count.
batch_flags() {
    local global=$1 per_device=$2
    local per_step=$(( per_device * PROCESSES ))
    (( global % per_step == 0 )) || fail "the global batch of $global is not a multiple of $per_device samples x $PROCESSES processes; set another per-device batch (PRETRAIN_PER_DEVICE, FINETUNE_PER_DEVICE, DISTILL_PER_DEVICE)"
    echo "--per_device_train_batch_size $per_device --gradient_accumulation_steps $(( global / per_step ))"
}

# launch MODULE FLAGS...: `deepspeed` on GPUs, `torchrun` with LAUNCHER=torchrun, one plain process on a CPU.
launch() {
    local module=$1; shift
    local launcher=${LAUNCHER:-}
    if [[ -z $launcher ]]; then
        if (( NUM_GPUS > 0 )); then launcher=deepspeed; elif (( PROCESSES > 1 )); then launcher=torchrun; else launcher=python; fi
    fi
    local -a flags=("$@")
    if [[ -n ${DRY_RUN:-} ]]; then
        if [[ -n ${DEEPSPEED_CONFIG:-} ]]; then flags+=(--deepspeed "$DEEPSPEED_CONFIG"); fi
        exec_or_run "$PYTHON" -m "$module" "${flags[@]}" --dry_run True --plan_gpus "$PROCESSES" \
            --plan_memory_gib "${GPU_MEMORY_GIB:-80}"
        return
    fi
    # Without it transformers looks for accelerators only, and each of several processes would train by itself.
    if (( NUM_GPUS == 0 )); then flags+=(--use_cpu True); fi
    if [[ -n ${DEEPSPEED_CONFIG:-} && ( $launcher == deepspeed || $launcher == torchrun ) ]]; then
        flags+=(--deepspeed "$DEEPSPEED_CONFIG")
    fi
    case $launcher in
        python) exec_or_run "$PYTHON" -m "$module" "${flags[@]}" ;;
        torchrun)
            local -a meeting=(--rdzv_backend c10d --rdzv_endpoint "${MASTER_ADDR:-127.0.0.1}:${MASTER_PORT:-29500}")
            if (( NUM_NODES == 1 )); then meeting=(--standalone); fi
            exec_or_run "$PYTHON" -m torch.distributed.run --nnodes "$NUM_NODES" \
                --nproc_per_node $(( PROCESSES / NUM_NODES )) "${meeting[@]}" -m "$module" "${flags[@]}" ;;
        deepspeed)
            local -a hosts=(--num_gpus "$NUM_GPUS")
            if (( NUM_NODES > 1 )); then
                hosts=(--hostfile "${HOSTFILE:?set HOSTFILE to a DeepSpeed host file to use several nodes}" --master_addr "${MASTER_ADDR:?set MASTER_ADDR}")
            fi
            exec_or_run "$PYTHON" -m deepspeed.launcher.runner "${hosts[@]}" --master_port "${MASTER_PORT:-29500}" \
                --module "$module" "${flags[@]}" ;;
        *) fail "LAUNCHER is '$launcher'; expected deepspeed, torchrun or python" ;;
    esac
}

exec_or_run() {
    case ${PRINT_ONLY:-} in
        "") "$@" ;;
        words) printf '%s\0' "$@" ;;  # for programs
        *) printf '%q ' "$@"; echo ;;
    esac
}

# scores_of CHECKPOINT: the folder of its evaluation: in its own, or beside it as by scripts/demo.sh; nothing without one.
scores_of() {
    local scores
    for scores in "$1/eval" "$(dirname "$1")/eval/$(basename "$1")"; do
        if [[ -e $scores/scores.json ]]; then echo "$scores"; return; fi
    done
}

# named_scores NAME=CHECKPOINT ...: NAME=FOLDER, a line each, of those that were evaluated.
named_scores() {
    local word scores
    for word in "$@"; do
        scores=$(scores_of "${word#*=}")
        if [[ -n $scores ]]; then echo "${word%%=*}=$scores"; fi
    done
}

# Flags of every stage. shellcheck disable=SC2034 (used by the scripts that source this file)
MODEL_FLAGS=(
    --vision_tower "$VISION_TOWER"
    --mm_vision_select_layer "$SELECT_LAYER"
    --mm_projector_type "$PROJECTOR"
    --image_aspect_ratio "$ASPECT_RATIO"
)
SCHEDULE_FLAGS=(
    --lr_scheduler_type cosine
    --warmup_ratio 0.03
    --weight_decay 0.
    --num_train_epochs 1
    --model_max_length "$MAX_LENGTH"
    --dataloader_num_workers "$NUM_WORKERS"
    "${PRECISION[@]}"
    "${STAGE_EXTRA[@]}"
)
