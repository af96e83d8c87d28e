#!/usr/bin/env bash
# Size, memory and speed of teacher and student (Table 17). Environment: IMAGE (a picture), QUESTION.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
source "$(dirname "$0")/_analysis.sh"
if [[ $PRESET == mini* ]]; then IMAGE=${IMAGE:-$MINI/images/train/000000.png}; fi
[[ -n ${IMAGE:-} ]] || fail "set IMAGE to a picture that the models are asked about"
STUDENT=$CHECKPOINTS/student-align-ti
SCORES=()
while read -r pair; do SCORES+=(--scores "$pair"); done < <(named_scores "teacher=$TEACHER" "Align-TI=$STUDENT")
analyse cost.inference --model "teacher=$TEACHER" --model "Align-TI=$STUDENT" \
    --image "$IMAGE" --question "${QUESTION:-Describe the picture in detail.}" "${SCORES[@]}" "$@"
