#!/usr/bin/env bash
# GKD (Agarwal et al. 2024): next-token KD with the Jensen-Shannon divergence, half of the steps on the student's own
# responses. The values are in scripts/recipes/gkd.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh distill gkd "$@"
