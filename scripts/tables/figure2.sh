#!/usr/bin/env bash
# Training-time and test-time accumulated error of the student of vanilla KD (Fig. 2, right).
source "$(dirname "$0")/_analysis.sh"
need_held_out
students --student "vanilla KD" sft+kd student-vanilla-kd
analyse exposure_bias --teacher "$TEACHER" "${STUDENTS[@]}" "${ANSWER_FLAGS[@]}" "${LENGTH_FLAGS[@]}" "$@"
