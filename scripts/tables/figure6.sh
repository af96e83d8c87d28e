#!/usr/bin/env bash
# %ExAccErr by generation step of the students of SFT, vanilla KD and Align-TI (Fig. 6).
source "$(dirname "$0")/_analysis.sh"
analyse exposure_bias --teacher "$TEACHER" --student "SFT=$CHECKPOINTS/student-sft" \
    --student "vanilla KD=$CHECKPOINTS/student-vanilla-kd" --student "Align-TI=$CHECKPOINTS/student-align-ti" \
    "${DATA_FLAGS[@]}" "${LENGTH_FLAGS[@]}" "$@"
