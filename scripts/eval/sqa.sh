#!/usr/bin/env bash
# ScienceQA: bash scripts/eval/sqa.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate sqa "$@"
