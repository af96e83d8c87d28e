# Train, evaluate and tabulate the students of one of the paper's tables; see align_ti/experiments.
#
#   PRESET=mini bash scripts/tables/table5.sh                  on the miniature that scripts/demo.sh made
#   PRESET=mini bash scripts/tables/table5.sh --seeds 1        one student a row
#   PRESET=mini bash scripts/tables/table5.sh --report-only    tabulate what is finished
#
# Other flags go to every training. The student's first stage is that of $CHECKPOINTS, the teacher $TEACHER, else the one
# there; its own scores are shown where it was evaluated (in its folder, or beside it as by scripts/demo.sh).
# Environment: as for scripts/distill and scripts/eval; TABLES (where the students go: $CHECKPOINTS/tables).
source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
export PRESET PYTHON CHECKPOINTS TEACHER
if [[ $PRESET == mini* ]]; then export MINI EVAL_ROOT=${EVAL_ROOT:-$MINI/eval} BATCH_SIZE=${BATCH_SIZE:-64}; fi
TABLE_FLAGS=(--folder "${TABLES:-$CHECKPOINTS/tables}")
for scores in "$TEACHER/eval" "$(dirname "$TEACHER")/eval/$(basename "$TEACHER")"; do
    if [[ -e $scores/scores.json ]]; then TABLE_FLAGS+=(--teacher "$scores"); break; fi
done
exec_or_run "$PYTHON" -m align_ti.experiments "$(basename "$0" .sh)" "${TABLE_FLAGS[@]}" "$@"
