#!/usr/bin/env bash
# TPA with 1, 2, 4 and 8 candidates, drawn by nucleus or greedily.
source "$(dirname "$0")/_table.sh"
