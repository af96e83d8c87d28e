# The miniature with a small teacher: Table 9 on a CPU.
# `python -m playground.mini.base_models --data playground/mini/build --also teacher-small-lm` makes its language model.
MINI=${MINI:-playground/mini/build}
TEACHER_BASE=${TEACHER_BASE:-$MINI/models/teacher-small-lm}
CHECKPOINTS=${CHECKPOINTS:-playground/mini/runs/small}
source scripts/presets/mini.sh
