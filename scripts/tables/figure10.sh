#!/usr/bin/env bash
# Where the instruction looks, in every layer of the teacher (Fig. 10).
source "$(dirname "$0")/_analysis.sh"
analyse attention.report --model "teacher=$TEACHER" --layers all "${VIEW_FLAGS[@]}" "$@"
