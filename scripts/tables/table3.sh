#!/usr/bin/env bash
# Distillation made for language models: KL variants against Align-TI.
source "$(dirname "$0")/_table.sh"
