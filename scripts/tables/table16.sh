#!/usr/bin/env bash
# The student beside its teacher.
source "$(dirname "$0")/_table.sh"
