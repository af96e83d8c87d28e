#!/usr/bin/env bash
# Make .venv with everything the project needs, once; later calls return at once. EXTRAS=towers,lora adds extras.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=dev${EXTRAS:+,$EXTRAS}
stamp=.venv/.ready-$(cksum < pyproject.toml | cut -d' ' -f1)-$extras
if [[ -f $stamp ]]; then exit 0; fi
echo "setting up .venv (some minutes, once)"
if [[ ! -x .venv/bin/python ]]; then
    "${BASE_PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || { echo "error: Python 3.11 or newer is needed; set BASE_PYTHON" >&2; exit 2; }
    "${BASE_PYTHON:-python3}" -m venv .venv
fi
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
# torch first, and exactly: a bare range would also take a build for another accelerator than the one wanted.
.venv/bin/python -c 'import torch' 2>/dev/null || "${pip[@]}" "${TORCH:-torch==2.13.0}"
DS_BUILD_OPS=0 "${pip[@]}" -e ".[$extras]"
rm -f .venv/.ready-*
touch "$stamp"
