#!/usr/bin/env bash
# The miniature's language models learn to answer about pictures in words, then read some of these texts as a whole, as
# public ones come pretrained on whole texts and tuned on answers.
#
#   bash playground/mini/words.sh teacher      (or student)
export PRESET=${PRESET:-mini}
source "$(dirname "$0")/../../scripts/_stages.sh"
role=${1:-}
case $role in
    teacher) base=$TEACHER_BASE answers=("${TEACHER_WORDS_EXTRA[@]}") whole=("${TEACHER_TEXTS_EXTRA[@]}") ;;
    student) base=$STUDENT_BASE answers=("${STUDENT_WORDS_EXTRA[@]}") whole=("${STUDENT_TEXTS_EXTRA[@]}") ;;
    *) fail "usage: words.sh teacher|student [flags]; got '$role'" ;;
esac
shift
first=$CHECKPOINTS/$role-answers
if [[ ! -e $first/trainer_state.json ]]; then
    pretrain "$role" "$base" "$MINI/words.json" "$MINI/images" "${answers[@]}" --output_dir "$first" "$@"
fi
pretrain "$role" "$first" "$MINI/words.json" "$MINI/images" "${whole[@]}" --train_on_inputs 1 \
    --output_dir "$CHECKPOINTS/$role-words" "$@"
