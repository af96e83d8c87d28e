#!/usr/bin/env bash
# MME: bash scripts/eval/mme.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval mme "$@"
