#!/usr/bin/env bash
# Every subset of the four losses.
source "$(dirname "$0")/_table.sh"
