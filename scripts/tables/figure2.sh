#!/usr/bin/env bash
# Training-time and test-time accumulated error of the student of vanilla KD (Fig. 2, right).
source "$(dirname "$0")/_analysis.sh"
analyse exposure_bias --teacher "$TEACHER" --student "vanilla KD=$CHECKPOINTS/student-vanilla-kd" \
    "${DATA_FLAGS[@]}" "${LENGTH_FLAGS[@]}" "$@"
