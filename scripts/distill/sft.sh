#!/usr/bin/env bash
# SFT: fine-tune the student without a teacher. The values are in scripts/recipes/sft.yaml.
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh finetune sft "$@"
