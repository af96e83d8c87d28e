# Shared by all training scripts: the preset, the device count, the batch arithmetic and the launcher.
#
#   PRESET=mini bash scripts/distill/align_ti.sh            the miniature, on a CPU
#   PRESET=qwen3-8b-0.6b bash scripts/distill/align_ti.sh   one of scripts/presets/*.sh
#   DRY_RUN=1 NUM_GPUS=16 bash scripts/distill/align_ti.sh  the plan: parameters, batch, steps, memory per GPU
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
[[ -f $PRESET_FILE ]] || fail "no preset '$PRESET'; there are: $(cd scripts/presets && printf '%s ' [!_]*.sh | sed 's/\.sh / /g')"
# shellcheck source=/dev/null
source "$PRESET_FILE"
TEACHER=${TEACHER:-$CHECKPOINTS/teacher}
NUM_NODES=${NUM_NODES:-1}
for name in NUM_GPUS CPU_PROCESSES; do  # a preset may set these; align_ti/launch.py reads them
    if [[ -n ${!name:-} ]]; then export "${name?}"; fi
done

# launch GLOBAL PER_DEVICE MODULE FLAGS...: start a training. GLOBAL and PER_DEVICE name the variables that hold the samples
# of one optimizer step and those of one process in one forward pass; align_ti/launch.py counts devices, computes the
# accumulation steps and runs deepspeed, torchrun or python (NUM_GPUS, NUM_NODES, HOSTFILE, MASTER_ADDR, LAUNCHER, ...).
launch() {
    local global=$1 per_device=$2 module=$3; shift 3
    local -a command=("$PYTHON" -m align_ti.launch --module "$module" --global_batch "${!global}"
        --per_device "${!per_device}" --batch_names "$global" "$per_device" ${NEEDS_GPU:+--needs_gpu})
    if [[ -n ${DEEPSPEED_CONFIG:-} ]]; then command+=(--deepspeed_config "$DEEPSPEED_CONFIG"); fi
    exec "${command[@]}" -- "$@"  # signals are for the program
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
