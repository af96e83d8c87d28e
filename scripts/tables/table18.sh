#!/usr/bin/env bash
# Vanilla KD for as long as Align-TI takes.
source "$(dirname "$0")/_table.sh"
