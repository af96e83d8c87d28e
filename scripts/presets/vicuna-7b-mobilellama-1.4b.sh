# Vicuna-7B teaches MobileLLaMA-1.4B, on Vicuna's prompt; both have Llama's tokenizer of 32,000 entries. The paper names no
# versions: v1.5 is LLaVA-1.5's, and Chat is what MobileVLM V2, which the paper cites for the student, starts from.
TEACHER_LM=${TEACHER_LM:-lmsys/vicuna-7b-v1.5}
STUDENT_LM=${STUDENT_LM:-mtgv/MobileLLaMA-1.4B-Chat}
TEMPLATE=${TEMPLATE:-v1}
source scripts/presets/_paper.sh
