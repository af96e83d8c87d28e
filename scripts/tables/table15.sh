#!/usr/bin/env bash
# SFT, vanilla KD and Align-TI.
source "$(dirname "$0")/_table.sh"
