#!/usr/bin/env bash
# The command `align-ti` of this checkout, with the Python of .venv if that is there; PYTHON names another one.
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
    if [[ -x $REPO/.venv/bin/python ]]; then PYTHON=$REPO/.venv/bin/python; else PYTHON=python3; fi
fi
export PYTHONPATH=$REPO${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m align_ti.cli "$@"
