#!/usr/bin/env bash
# SFT, vanilla KD and Align-TI on 25, 50, 75 and 100 % of the data.
source "$(dirname "$0")/_table.sh"
