#!/usr/bin/env bash
# MMBench (English, dev): bash scripts/eval/mmbench.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval mmbench "$@"
