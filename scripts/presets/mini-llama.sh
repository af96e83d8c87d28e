# The miniature with a Llama student under the Qwen2 teacher: Table 10 on a CPU.
# `python -m playground.mini.base_models --data playground/mini/build --also student-llama-lm` makes the student.
MINI=${MINI:-playground/mini/build}
STUDENT_BASE=${STUDENT_BASE:-$MINI/models/student-llama-lm}
TEACHER=${TEACHER:-playground/mini/runs/teacher}
CHECKPOINTS=${CHECKPOINTS:-playground/mini/runs/llama}
source scripts/presets/mini.sh
