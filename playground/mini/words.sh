#!/usr/bin/env bash
# The miniature's language models read about pictures in words, whole texts first and then answers alone, as public ones are
# pretrained and then tuned.
#
#   bash playground/mini/words.sh teacher      (or student)
export PRESET=${PRESET:-mini}
source "$(dirname "$0")/../../scripts/_stages.sh"
role=${1:-}
case $role in
    teacher) base=$TEACHER_BASE answers=("${TEACHER_WORDS_EXTRA[@]}") ;;
    student) base=$STUDENT_BASE answers=("${STUDENT_WORDS_EXTRA[@]}") ;;
    *) fail "usage: words.sh teacher|student [flags]; got '$role'" ;;
esac
shift
texts=$CHECKPOINTS/$role-texts
if [[ -n ${PRINT_ONLY:-} || ! -e $texts/trainer_state.json ]]; then
    ( pretrain "$role" "$base" "$MINI/words.json" "$MINI/images" "${TEXTS_EXTRA[@]}" --output_dir "$texts" "$@" )
fi
pretrain "$role" "$texts" "$MINI/words.json" "$MINI/images" "${answers[@]}" --output_dir "$CHECKPOINTS/$role-words" "$@"
