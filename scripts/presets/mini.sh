# The embedded miniature: real pictures, small models, a CPU. `python -m playground.mini.build` makes the data,
# `python -m playground.mini.base_models` the tower and the language models, `playground/mini/words.sh` teaches those to
# look before they see.
MINI=${MINI:-playground/mini/build}
VISION_TOWER=${VISION_TOWER:-$MINI/models/tower}
CHECKPOINTS=${CHECKPOINTS:-playground/mini/runs}
TEACHER_BASE=${TEACHER_BASE:-$MINI/models/teacher-lm}
STUDENT_BASE=${STUDENT_BASE:-$MINI/models/student-lm}
TEACHER_LM=${TEACHER_LM:-$CHECKPOINTS/teacher-words}
STUDENT_LM=${STUDENT_LM:-$CHECKPOINTS/student-words}
SELECT_LAYER=${SELECT_LAYER:--1}
PROJECTOR=${PROJECTOR:-mlp2x_gelu}
ASPECT_RATIO=${ASPECT_RATIO:-pad}
TEMPLATE=${TEMPLATE:-qwen_bare}
PRETRAIN_TEMPLATE=${PRETRAIN_TEMPLATE:-qwen_bare}
MAX_LENGTH=${MAX_LENGTH:-512}

TEACHER_PRETRAIN_DATA=${TEACHER_PRETRAIN_DATA:-$MINI/pretrain.json}
TEACHER_PRETRAIN_IMAGES=${TEACHER_PRETRAIN_IMAGES:-$MINI/images}
TEACHER_FINETUNE_DATA=${TEACHER_FINETUNE_DATA:-$MINI/finetune.json}
TEACHER_FINETUNE_IMAGES=${TEACHER_FINETUNE_IMAGES:-$MINI/images}
STUDENT_PRETRAIN_DATA=${STUDENT_PRETRAIN_DATA:-$TEACHER_PRETRAIN_DATA}
STUDENT_PRETRAIN_IMAGES=${STUDENT_PRETRAIN_IMAGES:-$TEACHER_PRETRAIN_IMAGES}
STUDENT_FINETUNE_DATA=${STUDENT_FINETUNE_DATA:-$TEACHER_FINETUNE_DATA}
STUDENT_FINETUNE_IMAGES=${STUDENT_FINETUNE_IMAGES:-$TEACHER_FINETUNE_IMAGES}
HELD_OUT_DATA=${HELD_OUT_DATA:-$MINI/held_out.json}
HELD_OUT_IMAGES=${HELD_OUT_IMAGES:-$MINI/images}

# A small language model that never saw a picture learns to look only when it is trained on captions itself.
PRETRAIN_FULL=${PRETRAIN_FULL-1}
PRETRAIN_LR=${PRETRAIN_LR:-1e-3}
PRETRAIN_BATCH=${PRETRAIN_BATCH:-64}
FINETUNE_LR=${FINETUNE_LR:-1e-3}
TEACHER_FINETUNE_LR=${TEACHER_FINETUNE_LR:-$FINETUNE_LR}
FINETUNE_BATCH=${FINETUNE_BATCH:-32}
# Looking is learnt suddenly, at a high rate; the words' stage and stage 1 share these flags.
LOOKING_FLAGS=(--group_by_modality_length True --lr_scheduler_type constant_with_warmup)
TEXTS_EXTRA=(--num_train_epochs 0.17 --train_on_inputs 1 "${LOOKING_FLAGS[@]}")
TEACHER_WORDS_EXTRA=(--num_train_epochs 0.75 "${LOOKING_FLAGS[@]}")
STUDENT_WORDS_EXTRA=(--num_train_epochs 0.63 --train_on_inputs 0.02 "${LOOKING_FLAGS[@]}")
TEACHER_PRETRAIN_EXTRA=(--num_train_epochs 0.85 "${LOOKING_FLAGS[@]}")
STUDENT_PRETRAIN_EXTRA=(--num_train_epochs 0.6 "${LOOKING_FLAGS[@]}")
TEACHER_FINETUNE_EXTRA=(--num_train_epochs 1.5) STUDENT_FINETUNE_EXTRA=()
STUDENT_EPOCHS=${STUDENT_EPOCHS:-0.67}

# Two processes of one thread each do 1.4 times the work of one process with two threads on models this small.
NUM_WORKERS=${NUM_WORKERS:-0}
NUM_GPUS=${NUM_GPUS:-0}
if (( NUM_GPUS == 0 )); then
    CPU_PROCESSES=${CPU_PROCESSES:-$(( $(nproc) > 1 ? 2 : 1 ))}
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
SHARES=${CPU_PROCESSES:-1}
PRETRAIN_PER_DEVICE=${PRETRAIN_PER_DEVICE:-$(( PRETRAIN_BATCH / SHARES ))}
FINETUNE_PER_DEVICE=${FINETUNE_PER_DEVICE:-$(( FINETUNE_BATCH / SHARES ))}
DISTILL_PER_DEVICE=${DISTILL_PER_DEVICE:-$(( FINETUNE_BATCH / SHARES ))}
PRECISION=(--dataloader_pin_memory False)
STAGE_EXTRA=(--logging_steps 5 --save_steps 500 --save_total_limit 1 --group_window 16)
DEEPSPEED_CONFIG=${DEEPSPEED_CONFIG:-}
TEACHER_DEEPSPEED_CONFIG=$DEEPSPEED_CONFIG
