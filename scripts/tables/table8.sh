#!/usr/bin/env bash
# IVA with the teacher's weights against the student's own.
source "$(dirname "$0")/_table.sh"
