#!/usr/bin/env bash
# IVA with the attention of layers at four depths of the teacher.
source "$(dirname "$0")/_table.sh"
