# Qwen3-1.7B teaches Qwen3-0.6B.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen3-1.7B}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen3-0.6B}
source scripts/presets/_paper.sh
