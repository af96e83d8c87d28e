#!/usr/bin/env bash
# IVA against uniform alignment of the visual tokens.
source "$(dirname "$0")/_table.sh"
