#!/usr/bin/env bash
# Student, stage 1: align the projector on captions (ShareGPT4V-PT, 1.2M; lr 1e-3, global batch 256).
source "$(dirname "$0")/../_stages.sh"
pretrain student "$STUDENT_LM" "$STUDENT_PRETRAIN_DATA" "$STUDENT_PRETRAIN_IMAGES" \
    "${STUDENT_PRETRAIN_EXTRA[@]}" "$@"
