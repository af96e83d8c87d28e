#!/usr/bin/env bash
# POPE: bash scripts/eval/pope.sh CHECKPOINT [flags of llava.eval.run], one process per GPU.
exec bash "$(dirname "$0")/../align-ti.sh" eval pope "$@"
