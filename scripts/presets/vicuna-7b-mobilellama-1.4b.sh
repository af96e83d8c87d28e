# Vicuna-7B teaches MobileLLaMA-1.4B, on Vicuna's prompt; both have Llama's tokenizer of 32,000 entries.
TEACHER_LM=${TEACHER_LM:-lmsys/vicuna-7b-v1.5}
STUDENT_LM=${STUDENT_LM:-mtgv/MobileLLaMA-1.4B-Chat}
TEMPLATE=${TEMPLATE:-v1}
source scripts/presets/_paper.sh
