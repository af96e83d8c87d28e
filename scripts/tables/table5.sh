#!/usr/bin/env bash
# IVA and TPA, alone and together.
source "$(dirname "$0")/_table.sh"
