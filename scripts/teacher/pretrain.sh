#!/usr/bin/env bash
# Teacher, stage 1: align the projector on captions (LLaVA-558k; lr 1e-3, global batch 256).
source "$(dirname "$0")/../_stages.sh"
DEEPSPEED_CONFIG=${TEACHER_DEEPSPEED_CONFIG:-}
PRETRAIN_LR=${TEACHER_PRETRAIN_LR:-$PRETRAIN_LR}
pretrain teacher "$TEACHER_LM" "$TEACHER_PRETRAIN_DATA" "$TEACHER_PRETRAIN_IMAGES" \
    "${TEACHER_PRETRAIN_EXTRA[@]}" "$@"
