#!/usr/bin/env bash
# Vanilla KD at other temperatures, Align-TI with other weights of IVA and TPA: not a table of the paper, but what to look at
# where results differ from its own.
source "$(dirname "$0")/_table.sh"
