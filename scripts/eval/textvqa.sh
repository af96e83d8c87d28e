#!/usr/bin/env bash
# TextVQA: bash scripts/eval/textvqa.sh CHECKPOINT [flags]; see _common.sh for the environment.
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
evaluate textvqa "$@"
