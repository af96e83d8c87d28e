#!/usr/bin/env bash
# MiniLLM (Gu et al. 2023): policy gradient of the reverse KL, on the student's own responses in half of the steps.
# The values are in scripts/recipes/minillm.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh distill minillm "$@"
