#!/usr/bin/env bash
# Vanilla KD: fine-tune the student with SFT + next-token KD (Eq. 2), the paper's main baseline.
# The values are in scripts/recipes/vanilla-kd.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh distill vanilla-kd "$@"
