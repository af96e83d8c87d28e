#!/usr/bin/env bash
# GKD (Agarwal et al. 2024): next-token KD by the Jensen-Shannon divergence; half of the steps are on the student's own
# responses. The others are on the data, with SFT.
source "$(dirname "$0")/../_stages.sh"
distill gkd sft,kd --divergence jsd --jsd_beta "${JSD_BETA:-0.5}" --on_policy_fraction "${ON_POLICY_FRACTION:-0.5}" "$@"
