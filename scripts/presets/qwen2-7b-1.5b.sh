# Qwen2-7B teaches Qwen2-1.5B, both the base models.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen2-7B}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen2-1.5B}
source scripts/presets/_paper.sh
