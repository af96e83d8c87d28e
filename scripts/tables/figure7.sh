#!/usr/bin/env bash
# Where the instruction looks: teacher and students on the same pictures, each asked two things (Fig. 7).
source "$(dirname "$0")/_analysis.sh"
analyse attention_report --model "teacher=$TEACHER" --model "SFT=$CHECKPOINTS/student-sft" \
    --model "vanilla KD=$CHECKPOINTS/student-vanilla-kd" --model "Align-TI=$CHECKPOINTS/student-align-ti" \
    "${DATA_FLAGS[@]}" "${VIEW_FLAGS[@]}" "$@"
