#!/usr/bin/env bash
# Teacher, stage 2: instruction tuning (LLaVA-mix-665k; lr 2e-5, global batch 128).
source "$(dirname "$0")/../_stages.sh"
DEEPSPEED_CONFIG=${TEACHER_DEEPSPEED_CONFIG:-}
finetune teacher "$TEACHER_LM" "$TEACHER_FINETUNE_DATA" "$TEACHER_FINETUNE_IMAGES" "$TEACHER_FINETUNE_LR" \
    "${TEACHER_FINETUNE_EXTRA[@]}" "$@"
