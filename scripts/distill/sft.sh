#!/usr/bin/env bash
# SFT: fine-tune the student without a teacher.
source "$(dirname "$0")/../_stages.sh"
finetune student-sft "$STUDENT_LM" "$STUDENT_FINETUNE_DATA" "$STUDENT_FINETUNE_IMAGES" "$FINETUNE_LR" \
    --num_train_epochs "$(student_epochs)" "${STUDENT_FINETUNE_EXTRA[@]}" "$@"
