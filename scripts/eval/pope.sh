#!/usr/bin/env bash
# POPE: bash scripts/eval/pope.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate pope "$@"
