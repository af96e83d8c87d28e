# Qwen3-8B teaches Qwen3-1.7B.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen3-8B}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen3-1.7B}
source scripts/presets/_paper.sh
