#!/usr/bin/env bash
# MMBench (English, dev): bash scripts/eval/mmbench.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate mmbench "$@"
