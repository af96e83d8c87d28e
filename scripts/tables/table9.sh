#!/usr/bin/env bash
# Align-TI under teachers of several sizes; the student is the preset's. The teachers have to be there: scripts/teacher/
# with PRESET=qwen3-1.7b-0.6b, qwen3-4b-0.6b and qwen3-8b-0.6b; on the miniature
#
#   python -m playground.mini.base_models --data playground/mini/build --also teacher-small-lm teacher-large-lm
#   for size in small large; do
#       PRESET=mini-$size-teacher bash playground/mini/words.sh teacher
#       for stage in pretrain finetune; do PRESET=mini-$size-teacher bash scripts/teacher/$stage.sh; done
#   done
#
# Environment: TEACHERS, other ones, as "NAME=CHECKPOINT NAME=CHECKPOINT".
PRESET=${PRESET:-qwen3-8b-0.6b}
TEACHER_WORDS=()
if [[ -n ${TEACHERS:-} ]]; then
    read -r -a TEACHER_WORDS <<< "$TEACHERS"
elif [[ $PRESET == mini ]]; then
    RUNS=${CHECKPOINTS:-playground/mini/runs}
    TEACHER_WORDS=("small=$RUNS/small/teacher" "medium=$RUNS/teacher" "large=$RUNS/large/teacher")
elif [[ $PRESET == qwen3-*-0.6b ]]; then
    for size in 1.7b 4b 8b; do TEACHER_WORDS+=("$size=checkpoints/qwen3-$size-0.6b/teacher"); done
else
    echo "error: PRESET is $PRESET; set TEACHERS=\"NAME=CHECKPOINT NAME=CHECKPOINT\", the teachers to compare" >&2
    exit 2
fi
set -- "$@" --teachers "${TEACHER_WORDS[@]}"
source "$(dirname "$0")/_table.sh"
