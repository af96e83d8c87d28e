#!/usr/bin/env bash
# TextVQA: bash scripts/eval/textvqa.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval textvqa "$@"
