#!/usr/bin/env bash
# All six benchmarks, with the model loaded once: bash scripts/eval/all.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval all "$@"
