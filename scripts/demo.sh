#!/usr/bin/env bash
# The whole path on the embedded miniature, on a CPU: data, base models, teacher, three students, six benchmarks, one table.
# Every step is skipped when its result is there; delete playground/mini/runs to train again.
#
#   bash scripts/demo.sh            the full miniature
#   QUICK=1 bash scripts/demo.sh    the same path on a hundredth of the data, in folders of its own
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
exec bash scripts/align-ti.sh demo "$@"
