#!/usr/bin/env bash
# Training cost of vanilla KD, +IVA, +TPA, Align-TI and GKD, in one interleaved run: at the paper's sizes on a large GPU,
# at a laptop's with PRESET=mini (candidate rows a step are then those of the miniature's own run).
source "$(dirname "$0")/../_common.sh"
flags=(--preset paper)
if [[ $PRESET == mini* ]]; then flags=(--preset laptop --rows_from "$CHECKPOINTS/student-align-ti"); fi
mkdir -p "${RESULTS:-docs/results}"
exec_or_run "$PYTHON" -m align_ti.bench "${flags[@]}" --json "${RESULTS:-docs/results}/table4.json" "$@"
