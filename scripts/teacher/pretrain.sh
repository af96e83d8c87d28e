#!/usr/bin/env bash
# Teacher, stage 1: align the projector on captions (LLaVA-558k; lr 1e-3, global batch 256).
# The values are in scripts/recipes/teacher-pretrain.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh pretrain teacher "$@"
