#!/usr/bin/env bash
# Where the instruction looks: teacher and students without and with IVA, and with uniform alignment, on the same
# pictures, each asked two things (Fig. 7), and how like the teacher's the students' maps are, all in the layer of the
# teacher's highest IRS.
source "$(dirname "$0")/_analysis.sh"
students --model "vanilla KD" sft+kd student-vanilla-kd "KD + uniform" uniform - "KD + IVA" sft+kd+iva - \
    Align-TI sft+kd+iva+tpa student-align-ti
analyse attention.report --model "teacher=$TEACHER" "${STUDENTS[@]}" "${DATA_FLAGS[@]}" "${VIEW_FLAGS[@]}" "$@"
