#!/usr/bin/env bash
# ScienceQA: bash scripts/eval/sqa.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval sqa "$@"
