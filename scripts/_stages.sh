# The three stages, each in one place: projector pretraining, instruction tuning, distillation.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

# With PRETRAIN_FULL=1 stage 1 trains the language model as well (as MobileVLM V2 does) and stage 2 starts from its result;
# otherwise stage 1 is LLaVA's: the projector alone.
stage_two_start() {  # ROLE LM: sets START, flags that say where stage 2 starts from
    if [[ -n ${PRETRAIN_FULL:-} ]]; then
        START=(--model_name_or_path "$CHECKPOINTS/$1-pretrain")
    else
        START=(--model_name_or_path "$2" --pretrain_mm_mlp_adapter "$CHECKPOINTS/$1-pretrain/mm_projector.bin")
    fi
}

# pretrain ROLE LM DATA IMAGES FLAGS...: stage 1, on captions.
pretrain() {
    local role=$1 language_model=$2 data=$3 images=$4; shift 4
    launch PRETRAIN_BATCH PRETRAIN_PER_DEVICE llava.train.train \
        --model_name_or_path "$language_model" --version "${PRETRAIN_TEMPLATE:-plain}" \
        --tune_mm_mlp_adapter "$([[ -n ${PRETRAIN_FULL:-} ]] && echo False || echo True)" \
        --data_path "$data" --image_folder "$images" \
        "${MODEL_FLAGS[@]}" "${SCHEDULE_FLAGS[@]}" \
        --learning_rate "$PRETRAIN_LR" \
        --output_dir "$CHECKPOINTS/$role-pretrain" --run_name "$PRESET-$role-pretrain" "$@"
}

# finetune ROLE LM DATA IMAGES LR FLAGS...: stage 2, supervised; the projector of stage 1 is loaded.
finetune() {
    local role=$1 language_model=$2 data=$3 images=$4 rate=$5; shift 5
    stage_two_start "${role%%-*}" "$language_model"
    launch FINETUNE_BATCH FINETUNE_PER_DEVICE llava.train.train \
        "${START[@]}" --version "$TEMPLATE" \
        --data_path "$data" --image_folder "$images" --group_by_modality_length True \
        "${MODEL_FLAGS[@]}" "${SCHEDULE_FLAGS[@]}" \
        --learning_rate "$rate" \
        --output_dir "$CHECKPOINTS/$role" --run_name "$PRESET-$role" "$@"
}

# student_epochs: the student's passes over its data in stage 2: STUDENT_EPOCHS, else 1, times DATA_SHARE percent.
student_epochs() { awk "BEGIN { print ${STUDENT_EPOCHS:-1} * ${DATA_SHARE:-100} / 100 }"; }

# distill NAME LOSSES FLAGS...: stage 2 of the student with the teacher's losses added; COMPILE_LOSSES=1 fuses them with
# torch.compile, a quarter faster on the miniature.
distill() {
    local name=$1 losses=$2; shift 2
    local teacher=$TEACHER
    if [[ -n ${DRY_RUN:-} && ! -e $teacher ]]; then teacher=$TEACHER_LM; fi  # a plan can be made before there is one
    stage_two_start student "$STUDENT_LM"
    launch FINETUNE_BATCH DISTILL_PER_DEVICE align_ti.training.train \
        --teacher_path "$teacher" --losses "$losses" \
        "${START[@]}" --version "$TEMPLATE" \
        --data_path "$STUDENT_FINETUNE_DATA" --image_folder "$STUDENT_FINETUNE_IMAGES" --group_by_modality_length True \
        "${MODEL_FLAGS[@]}" "${SCHEDULE_FLAGS[@]}" --num_train_epochs "$(student_epochs)" "${STUDENT_FINETUNE_EXTRA[@]}" \
        ${COMPILE_LOSSES:+--compile_losses True} --learning_rate "$FINETUNE_LR" \
        --output_dir "$CHECKPOINTS/student-$name" --run_name "$PRESET-student-$name" "$@"
}
