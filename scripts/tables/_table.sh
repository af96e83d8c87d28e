# Train, evaluate and tabulate the students of one of the paper's tables; see align_ti/studies/tables.
#
#   PRESET=mini bash scripts/tables/table5.sh                  on the miniature that scripts/demo.sh made
#   PRESET=mini bash scripts/tables/table5.sh --seeds 1        one student a row
#   PRESET=mini bash scripts/tables/table5.sh --report-only    tabulate what is finished; where no student of the table
#                                                              is, the kept records of docs/results
#
# Other flags go to every training. The student's first stage is that of $CHECKPOINTS, the teacher $TEACHER, else the one
# there (or TEACHER_WORDS, several as NAME=CHECKPOINT); its own scores are shown where it was evaluated (in its folder, or
# beside it as by scripts/demo.sh).
# Environment: as for scripts/distill and scripts/eval; TABLES (where the students go: $CHECKPOINTS/tables); RESULTS (where
# the results go: $CHECKPOINTS/results; RESULTS=docs/results for those that are kept in the repository);
# HELD_OUT_DATA and HELD_OUT_IMAGES (conversations that no student trains on: a column of cross-entropy); on the miniature
# JOBS (students trained at a time, each by one process: two where there are two cores).
if [[ ${PRESET:-} == mini* && ${NUM_GPUS:-0} == 0 ]]; then
    JOBS=${JOBS:-$(( $(nproc) > 1 ? 2 : 1 ))}
    export CPU_PROCESSES=${CPU_PROCESSES:-1}
fi
source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
export PRESET PYTHON CHECKPOINTS TEACHER
if [[ $PRESET == mini* ]]; then export MINI EVAL_ROOT=${EVAL_ROOT:-$MINI/eval} BATCH_SIZE=${BATCH_SIZE:-64}; fi
TABLE_FLAGS=(--folder "${TABLES:-$CHECKPOINTS/tables}" --out "${RESULTS:-$CHECKPOINTS/results}" --jobs "${JOBS:-1}")
if [[ -n ${HELD_OUT_DATA:-} ]]; then
    TABLE_FLAGS+=(--held-out "$HELD_OUT_DATA" ${HELD_OUT_IMAGES:+--held-out-images "$HELD_OUT_IMAGES"})
fi
mapfile -t SCORES < <(named_scores "${TEACHER_WORDS[@]:-Teacher=$TEACHER}")
if (( ${#SCORES[@]} )); then TABLE_FLAGS+=(--teacher-scores "${SCORES[@]}"); fi
if [[ -z ${PRINT_ONLY:-} ]]; then exec_or_run() { exec "$@"; }; fi  # signals are for the program
if [[ ${LAUNCHER:-} == torchrun ]] && (( NUM_NODES > 1 )); then
    fail "torchrun on several nodes needs the same command on each of them, a table is one command; use LAUNCHER=deepspeed"
fi
exec_or_run "$PYTHON" -m align_ti.studies.tables "$(basename "$0" .sh)" "${TABLE_FLAGS[@]}" "$@"
