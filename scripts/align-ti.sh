#!/usr/bin/env bash
# The command `align-ti` of this checkout, run with the Python of .venv if it exists; PYTHON selects another one.
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
    if [[ -x $REPO/.venv/bin/python ]]; then PYTHON=$REPO/.venv/bin/python; else PYTHON=python3; fi
fi
export PYTHONPATH=$REPO${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m align_ti.cli "$@"
