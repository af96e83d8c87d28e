#!/usr/bin/env bash
# GQA: bash scripts/eval/gqa.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate gqa "$@"
