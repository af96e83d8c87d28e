# Qwen2-7B-Instruct teaches Qwen2-1.5B-Instruct.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen2-7B-Instruct}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen2-1.5B-Instruct}
source scripts/presets/_paper.sh
