#!/usr/bin/env bash
# Uniform alignment (the paper's Table 6, after LLaVA-KD): SFT + KD, and all visual tokens aligned with equal weights.
source "$(dirname "$0")/../_stages.sh"
distill uniform-alignment sft,kd,iva --iva_weights uniform "$@"
