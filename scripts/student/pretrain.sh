#!/usr/bin/env bash
# Student, stage 1: align the projector on captions (ShareGPT4V-PT, 1.2M; lr 1e-3, global batch 256).
# The values are in scripts/recipes/student-pretrain.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh pretrain student "$@"
