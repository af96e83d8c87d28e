#!/usr/bin/env bash
# Set up if needed, then lint, type-check and test. Arguments go to pytest: bash scripts/test.sh -k ribbon
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS=dev bash scripts/setup.sh
bash scripts/browser.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
