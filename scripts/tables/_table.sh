# Train, evaluate and tabulate the students of one of the paper's tables; see align_ti/experiments.
#
#   PRESET=mini bash scripts/tables/table5.sh                  on the miniature that scripts/demo.sh made
#   PRESET=mini bash scripts/tables/table5.sh --seeds 1        one student a row
#   PRESET=mini bash scripts/tables/table5.sh --report-only    tabulate what is finished
#
# Other flags go to every training. The teacher and the student's first stage are those of $CHECKPOINTS.
# Environment: as for scripts/distill and scripts/eval; TABLES (where the students go: $CHECKPOINTS/tables); TEACHERS
# (NAME=CHECKPOINT words, for table9).
source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
export PRESET PYTHON CHECKPOINTS
if [[ $PRESET == mini* ]]; then export MINI EVAL_ROOT=${EVAL_ROOT:-$MINI/eval} BATCH_SIZE=${BATCH_SIZE:-64}; fi
TEACHER_FLAGS=()
if [[ -e $CHECKPOINTS/eval/teacher/scores.json ]]; then TEACHER_FLAGS=(--teacher "$CHECKPOINTS/eval/teacher"); fi
exec_or_run "$PYTHON" -m align_ti.experiments "$(basename "$0" .sh)" --folder "${TABLES:-$CHECKPOINTS/tables}" \
    "${TEACHER_FLAGS[@]}" ${TEACHERS:+--teachers $TEACHERS} "$@"
