#!/usr/bin/env bash
# %ExAccErr by generation step of the students of SFT, vanilla KD, TPA (where table5.sh has trained it) and Align-TI (Fig. 6).
source "$(dirname "$0")/_analysis.sh"
need_held_out
students --student SFT sft student-sft "vanilla KD" sft+kd student-vanilla-kd TPA sft+kd+tpa - \
    Align-TI sft+kd+iva+tpa student-align-ti
analyse exposure_bias --teacher "$TEACHER" "${STUDENTS[@]}" "${ANSWER_FLAGS[@]}" "${LENGTH_FLAGS[@]}" "$@"
