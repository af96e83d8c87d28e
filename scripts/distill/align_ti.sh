#!/usr/bin/env bash
# Align-TI (Eq. 8): fine-tune the student with SFT + KD + IVA + TPA from the teacher of scripts/teacher/.
# The values are in scripts/recipes/align-ti.yaml.
#
#   bash scripts/distill/align_ti.sh                                    Qwen2-7B teaches Qwen2-0.5B on all GPUs of this node
#   PRESET=qwen3-8b-1.7b bash scripts/distill/align_ti.sh               another pair in scripts/recipes/pairs
#   bash scripts/distill/align_ti.sh --teacher_path /path/to/teacher --tpa_d 8
#   NUM_GPUS=16 bash scripts/distill/align_ti.sh --print                print the command without running it
cd "$(dirname "$0")/../.."
exec bash scripts/align-ti.sh distill align-ti "$@"
