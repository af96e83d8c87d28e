#!/usr/bin/env bash
# Training cost of vanilla KD, +IVA, +TPA, Align-TI and GKD, in one interleaved run: at the paper's sizes on a large GPU,
# at a laptop's with PRESET=mini (candidate rows a step are then those of the miniature's own run, all cores work on a
# step). COMPILE_LOSSES=1 fuses the losses.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
source "$(dirname "$0")/../_common.sh"
flags=(--preset paper)
if [[ $PRESET == mini* ]]; then flags=(--preset laptop --rows_from "$CHECKPOINTS/student-align-ti"); fi
exec_or_run "$PYTHON" -m align_ti.studies.cost "${flags[@]}" ${COMPILE_LOSSES:+--compile_losses} \
    --out "${RESULTS:-$CHECKPOINTS/results}" --name table4 "$@"
