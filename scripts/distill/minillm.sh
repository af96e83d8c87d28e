#!/usr/bin/env bash
# MiniLLM (Gu et al. 2023): the policy gradient of the reverse KL on the student's own responses in half of the steps,
# SFT on the data in the others.
source "$(dirname "$0")/../_stages.sh"
distill minillm sft,pg --on_policy_fraction "${ON_POLICY_FRACTION:-0.5}" "$@"
