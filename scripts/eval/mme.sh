#!/usr/bin/env bash
# MME: bash scripts/eval/mme.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate mme "$@"
