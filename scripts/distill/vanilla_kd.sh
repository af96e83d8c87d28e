#!/usr/bin/env bash
# Vanilla KD: fine-tune the student with SFT + next-token KD (Eq. 2), the paper's main baseline.
source "$(dirname "$0")/../_stages.sh"
distill vanilla-kd sft,kd "$@"
