#!/usr/bin/env bash
# Align-TI (Eq. 8): fine-tune the student with SFT + KD + IVA + TPA under the teacher of scripts/teacher/.
#
#   bash scripts/distill/align_ti.sh                              Qwen2-7B teaches Qwen2-0.5B on all GPUs of this node
#   PRESET=qwen3-8b-1.7b bash scripts/distill/align_ti.sh         another pair
#   TEACHER=/path/to/teacher bash scripts/distill/align_ti.sh --tpa_d 8
source "$(dirname "$0")/../_stages.sh"
distill align-ti sft,kd,iva,tpa --iva_layer "${IVA_LAYER:-auto}" --tpa_d "${TPA_D:-4}" "$@"
