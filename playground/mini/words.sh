#!/usr/bin/env bash
# Train the miniature's language models on pictures described in words: first on whole texts, then only on the answers, as
# public models are pretrained and then tuned. The values are in playground/mini/recipes.
#
#   bash playground/mini/words.sh teacher      (or student)
set -euo pipefail
cd "$(dirname "$0")/../.."
export PRESET=${PRESET:-mini}
role=${1:-}
if [[ $role != teacher && $role != student ]]; then
    echo "error: usage: words.sh teacher|student [flags]; got '$role'" >&2
    exit 2
fi
shift
bash scripts/align-ti.sh pretrain "playground/mini/recipes/$role-texts.yaml" "$@"
exec bash scripts/align-ti.sh pretrain "playground/mini/recipes/$role-words.yaml" "$@"
