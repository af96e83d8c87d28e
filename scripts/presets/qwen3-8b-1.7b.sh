# Qwen3-8B teaches Qwen3-1.7B: the models of these names, which are post-trained. The paper does not say whether it took
# those or the ones named Qwen3-8B-Base and Qwen3-1.7B-Base; TEACHER_LM and STUDENT_LM choose.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen3-8B}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen3-1.7B}
source scripts/presets/_paper.sh
