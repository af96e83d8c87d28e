# The miniature with a large teacher: Table 9 on a CPU.
# `python -m playground.mini.base_models --data playground/mini/build --also teacher-large-lm` makes its language model.
MINI=${MINI:-playground/mini/build}
TEACHER_BASE=${TEACHER_BASE:-$MINI/models/teacher-large-lm}
CHECKPOINTS=${CHECKPOINTS:-playground/mini/runs/large}
source scripts/presets/mini.sh
