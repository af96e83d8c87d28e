#!/usr/bin/env bash
# IRS by layer of teacher and students, and how many pairs of inputs it takes (Fig. 4).
source "$(dirname "$0")/_analysis.sh"
analyse attention.relevance --model "teacher=$TEACHER" --model "SFT=$CHECKPOINTS/student-sft" \
    --model "Align-TI=$CHECKPOINTS/student-align-ti" "${DATA_FLAGS[@]}" "$@"
