#!/usr/bin/env bash
# A student of another architecture: MobileLLaMA-1.4B under Vicuna-7B, or on the miniature a Llama of the student's size.
PRESET=${PRESET:-vicuna-7b-mobilellama-1.4b}
if [[ $PRESET == mini ]]; then PRESET=mini-llama; fi
source "$(dirname "$0")/_table.sh"
