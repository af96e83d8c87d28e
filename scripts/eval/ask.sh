#!/usr/bin/env bash
# Your own questions, one process per GPU: bash scripts/eval/ask.sh --model-path CHECKPOINT \
#     --question-file questions.jsonl --image-folder images --answers-file answers.jsonl [flags of llava.eval.ask]
exec bash "$(dirname "$0")/../align-ti.sh" eval ask "$@"
