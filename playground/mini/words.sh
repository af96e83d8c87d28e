#!/usr/bin/env bash
# The miniature's language models learn to answer about pictures in words; a share of these texts is read as a whole, as
# public models are pretrained.
#
#   bash playground/mini/words.sh teacher      (or student)
export PRESET=${PRESET:-mini}
source "$(dirname "$0")/../../scripts/_stages.sh"
role=${1:-}
case $role in
    teacher) base=$TEACHER_BASE extra=("${TEACHER_WORDS_EXTRA[@]}") ;;
    student) base=$STUDENT_BASE extra=("${STUDENT_WORDS_EXTRA[@]}") ;;
    *) fail "usage: words.sh teacher|student [flags]; got '$role'" ;;
esac
shift
pretrain "$role" "$base" "$MINI/words.json" "$MINI/images" "${extra[@]}" --output_dir "$CHECKPOINTS/$role-words" "$@"
