#!/usr/bin/env bash
# Align-TI under teachers of several sizes. They have to be there: scripts/teacher/ with PRESET=mini-small-teacher and
# mini-large-teacher, or with qwen3-1.7b-0.6b, qwen3-4b-0.6b and qwen3-8b-0.6b. The student is the preset's.
if [[ ${PRESET:-} == mini ]]; then
    RUNS=${CHECKPOINTS:-playground/mini/runs}
    TEACHERS=${TEACHERS:-small=$RUNS/small/teacher medium=$RUNS/teacher large=$RUNS/large/teacher}
else
    PRESET=${PRESET:-qwen3-8b-0.6b}
    TEACHERS=${TEACHERS:-$(for size in 1.7b 4b 8b; do echo "$size=checkpoints/qwen3-$size-0.6b/teacher"; done)}
fi
source "$(dirname "$0")/_table.sh"
