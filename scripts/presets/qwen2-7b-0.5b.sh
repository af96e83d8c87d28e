# Qwen2-7B teaches Qwen2-0.5B, both the base models; README, "What was decided where the paper is silent", says why.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen2-7B}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen2-0.5B}
source scripts/presets/_paper.sh
