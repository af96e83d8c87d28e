#!/usr/bin/env bash
# GQA: bash scripts/eval/gqa.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval gqa "$@"
