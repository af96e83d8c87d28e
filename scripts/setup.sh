#!/usr/bin/env bash
# Create .venv with the packages for training and evaluation; later calls return immediately.
#
#   bash scripts/setup.sh
#   EXTRAS=lora,serve bash scripts/setup.sh      with optional packages (pyproject.toml lists them; dev is for the tests)
#   TORCH=torch==2.11.0 BASE_PYTHON=python3.12 bash scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 2; }

extras=${EXTRAS:-}
version=$(cksum < pyproject.toml | cut -d' ' -f1)
stamp=.venv/.ready-$version-$extras
if [[ -f $stamp || ( -z $extras && -n $(compgen -G ".venv/.ready-$version-*") ) ]]; then exit 0; fi

flash=""
if [[ ,$extras, == *,flash,* ]]; then
    flash=$(sed -n 's/^flash = \["\(.*\)"\]/\1/p' pyproject.toml)
    extras=$(tr ',' '\n' <<< "$extras" | grep -vx flash | paste -sd, || true)
fi

echo "setting up .venv (a few minutes, once)"
if [[ ! -x .venv/bin/python ]]; then
    "${BASE_PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "Python 3.11 or newer is needed; set BASE_PYTHON"
    "${BASE_PYTHON:-python3}" -m venv .venv
fi
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
# torch first, with an exact version: a range could select a build for another accelerator.
.venv/bin/python -c 'import torch' 2>/dev/null || "${pip[@]}" "${TORCH:-torch==2.13.0}"
DS_BUILD_OPS=0 "${pip[@]}" -e ".${extras:+[$extras]}"
if [[ -n $flash ]]; then
    # Without a matching wheel, this compiles CUDA code against the installed torch, which takes hours.
    .venv/bin/python -c 'import sys; from torch.utils.cpp_extension import CUDA_HOME; sys.exit(CUDA_HOME is None)' \
        || fail "the extra 'flash' compiles flash-attn and needs a CUDA build of torch and the CUDA toolkit (nvcc); this" \
            "environment has $(.venv/bin/python -c 'import torch; print("torch", torch.__version__)'). Leave the extra out:" \
            "PyTorch has its own FlashAttention, which is used by default"
    "${pip[@]}" setuptools wheel packaging ninja
    "${pip[@]}" --no-build-isolation "$flash"
fi
find .venv -maxdepth 1 -name '.ready-*' ! -name ".ready-$version-*" -delete
touch "$stamp"
