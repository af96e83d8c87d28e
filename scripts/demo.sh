#!/usr/bin/env bash
# The complete pipeline on the embedded miniature, on a CPU: data, base models, teacher, three students, six benchmarks and
# a table. Steps whose results exist are skipped; delete playground/mini/runs to train again.
#
#   bash scripts/demo.sh            the full miniature
#   QUICK=1 bash scripts/demo.sh    the same pipeline on a hundredth of the data, in separate folders
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
exec bash scripts/align-ti.sh demo "$@"
