# What all full-scale presets share: the paper's data, tower and schedule (sections 4 and B.1).
DATA_ROOT=${DATA_ROOT:-playground/data}
VISION_TOWER=${VISION_TOWER:-google/siglip-so400m-patch14-384}
SELECT_LAYER=${SELECT_LAYER:--2}
PROJECTOR=${PROJECTOR:-mlp2x_gelu}
ASPECT_RATIO=${ASPECT_RATIO:-pad}
TEMPLATE=${TEMPLATE:-qwen}
MAX_LENGTH=${MAX_LENGTH:-2048}

# find_mix NAME MIX IMAGES PLACE...: sets NAME_DATA and NAME_IMAGES unless they are set. What `python -m
# llava.prepare` made is taken if it is there, with pictures below DATA_ROOT; else the published file, at the first
# PLACE where there is one, with pictures below IMAGES.
find_mix() {
    local data=$1_DATA images=$1_IMAGES made=$DATA_ROOT/mixes/$2.json folder=$3 place published=
    shift 3
    if [[ -z ${!data:-} && -f $made ]]; then
        published=$made folder=$DATA_ROOT
    else
        for place in "$@"; do
            if [[ -f $DATA_ROOT/$place ]]; then published=$DATA_ROOT/$place; break; fi
        done
    fi
    printf -v "$data" %s "${!data:-${published:-$DATA_ROOT/$1}}"
    printf -v "$images" %s "${!images:-$folder}"
}
LAION=$DATA_ROOT/LLaVA-Pretrain/images  # the file has paths from there on; the other mixes from DATA_ROOT on
if [[ ! -d $LAION && -d $DATA_ROOT/llava/llava_pretrain/images ]]; then LAION=$DATA_ROOT/llava/llava_pretrain/images; fi
find_mix TEACHER_PRETRAIN teacher-pretrain "$LAION" LLaVA-Pretrain/blip_laion_cc_sbu_558k.json blip_laion_cc_sbu_558k.json
find_mix TEACHER_FINETUNE teacher-finetune "$DATA_ROOT" llava_v1_5_mix665k.json
find_mix STUDENT_PRETRAIN student-pretrain "$DATA_ROOT" share-captioner_coco_lcs_sam_1246k_1107.json \
    sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107.json
find_mix STUDENT_FINETUNE student-finetune "$DATA_ROOT" MobileVLM_V2_FT_Mix2M.json

PRETRAIN_LR=${PRETRAIN_LR:-1e-3}
PRETRAIN_BATCH=${PRETRAIN_BATCH:-256}
PRETRAIN_PER_DEVICE=${PRETRAIN_PER_DEVICE:-16}
FINETUNE_LR=${FINETUNE_LR:-2e-5}
FINETUNE_BATCH=${FINETUNE_BATCH:-128}
FINETUNE_PER_DEVICE=${FINETUNE_PER_DEVICE:-8}
DISTILL_PER_DEVICE=${DISTILL_PER_DEVICE:-4}
TEACHER_FINETUNE_LR=${TEACHER_FINETUNE_LR:-$FINETUNE_LR}
TEACHER_PRETRAIN_EXTRA=() STUDENT_PRETRAIN_EXTRA=() TEACHER_FINETUNE_EXTRA=() STUDENT_FINETUNE_EXTRA=()

NUM_WORKERS=${NUM_WORKERS:-8}
NEEDS_GPU=1
PRECISION=(--bf16 True --tf32 True)
STAGE_EXTRA=(--gradient_checkpointing True --save_steps 1000 --save_total_limit 2)
DEEPSPEED_CONFIG=${DEEPSPEED_CONFIG:-scripts/deepspeed/zero2.json}
# A 7-8B teacher with its optimizer does not fit one GPU of 80 GB under ZeRO-2.
TEACHER_DEEPSPEED_CONFIG=${TEACHER_DEEPSPEED_CONFIG:-scripts/deepspeed/zero3.json}

CHECKPOINTS=${CHECKPOINTS:-checkpoints/$PRESET}
