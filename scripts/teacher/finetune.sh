#!/usr/bin/env bash
# Teacher, stage 2: instruction tuning (LLaVA-mix-665k; lr 2e-5, global batch 128).
# The values are in scripts/recipes/teacher-finetune.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh finetune teacher "$@"
