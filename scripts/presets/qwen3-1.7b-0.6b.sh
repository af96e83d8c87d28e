# Qwen3-1.7B teaches Qwen3-0.6B: the models of these names, which are post-trained. The paper does not say whether it took
# those or the ones named Qwen3-1.7B-Base and Qwen3-0.6B-Base; TEACHER_LM and STUDENT_LM choose.
TEACHER_LM=${TEACHER_LM:-Qwen/Qwen3-1.7B}
STUDENT_LM=${STUDENT_LM:-Qwen/Qwen3-0.6B}
source scripts/presets/_paper.sh
