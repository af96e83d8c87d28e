#!/usr/bin/env bash
# A student of another architecture: MobileLLaMA-1.4B under Vicuna-7B. On the miniature a Llama of the student's size,
# under the miniature's teacher; the student's first stage has to be there:
#
#   python -m playground.mini.base_models --data playground/mini/build --also student-llama-lm
#   PRESET=mini-llama bash playground/mini/words.sh student
#   PRESET=mini-llama bash scripts/student/pretrain.sh
PRESET=${PRESET:-vicuna-7b-mobilellama-1.4b}
if [[ $PRESET == mini ]]; then
    PRESET=mini-llama
    RUNS=${CHECKPOINTS:-playground/mini/runs}
    CHECKPOINTS=$RUNS/llama TEACHER=${TEACHER:-$RUNS/teacher}
fi
source "$(dirname "$0")/_table.sh"
