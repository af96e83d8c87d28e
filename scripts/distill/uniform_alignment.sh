#!/usr/bin/env bash
# Uniform alignment (Table 6, after LLaVA-KD): SFT + KD, with all visual tokens aligned with equal weights.
# The values are in scripts/recipes/uniform-alignment.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh distill uniform-alignment "$@"
