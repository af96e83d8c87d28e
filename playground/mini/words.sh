#!/usr/bin/env bash
# The miniature's language models read about pictures in words, whole texts first and then answers alone, as public ones are
# pretrained and then tuned. The values are in playground/mini/recipes.
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
