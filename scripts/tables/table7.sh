#!/usr/bin/env bash
# IVA with the attention of layers at five depths of the teacher; of four on the miniature, whose teacher has no more.
source "$(dirname "$0")/_table.sh"
