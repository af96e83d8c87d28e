#!/usr/bin/env bash
# All six benchmarks, with the model loaded once: bash scripts/eval/all.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate all "$@"
