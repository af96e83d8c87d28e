# The miniature with a large teacher: Table 9 on a CPU.
# `python -m playground.mini.base_models --data playground/mini/build --also teacher-large-lm` makes its language model.
MINI=${MINI:-playground/mini/build}
TEACHER_BASE=${TEACHER_BASE:-$MINI/models/teacher-large-lm}
CHECKPOINTS=${CHECKPOINTS:-playground/mini/runs/large}
PRETRAIN_LR=${PRETRAIN_LR:-5e-4}  # at 1e-3 the words' stage gets stuck: a loss of 0.5 after 600 steps instead of 0.2
source scripts/presets/mini.sh
