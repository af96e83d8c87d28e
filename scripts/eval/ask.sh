#!/usr/bin/env bash
# Questions of your own: bash scripts/eval/ask.sh --model-path CHECKPOINT --question-file questions.jsonl \
#     --image-folder images --answers-file answers.jsonl [flags of llava.eval.ask]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
ask=("$PYTHON" -m llava.eval.ask ${CONV_MODE:+--conv-mode "$CONV_MODE"} --batch-size "${BATCH_SIZE:-8}" "$@")
if (( ${#GPUS[@]} <= 1 )); then "${ask[@]}"; else on_every_gpu "${ask[@]}"; fi
