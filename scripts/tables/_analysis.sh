# Measure what one of the paper's figures shows, on the checkpoints that scripts/distill made; see align_ti/studies.
#
#   PRESET=mini bash scripts/tables/figure6.sh                 on the miniature that scripts/demo.sh made
#   PRESET=mini bash scripts/tables/figure6.sh --samples 50    flags go to the program
#
# Environment: as for scripts/distill; RESULTS (where the results go: $CHECKPOINTS/results; RESULTS=docs/results for those
# that are kept in the repository); HELD_OUT_DATA and HELD_OUT_IMAGES (conversations that no student trains on, for Figs. 2
# and 6); TABLES (students of several seeds: $CHECKPOINTS/tables). Pictures to look at come from GQA in EVAL_ROOT.
source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
export PRESET PYTHON CHECKPOINTS TEACHER
DATA_FLAGS=(--data "$STUDENT_FINETUNE_DATA" --image-folder "$STUDENT_FINETUNE_IMAGES")
if [[ $PRESET == mini* ]]; then export MINI; fi
# Figs. 2 and 6 are measured on conversations that no student trained on. At full scale these are 1,000 of the student's
# mix, taken out of it by align_ti.studies.hold_out: of MIX.json, MIX-held-out.json and the rest, MIX-train.json.
MIX=${STUDENT_FINETUNE_DATA%%,*}
MIX_ENDING=${MIX#"${MIX%.json*}"}
MIX_NAME=${MIX%"$MIX_ENDING"}
MIX_NAME=${MIX_NAME%-train}
if [[ -z ${HELD_OUT_DATA:-} ]]; then
    HELD_OUT_DATA=$MIX_NAME-held-out$MIX_ENDING
    HELD_OUT_IMAGES=${HELD_OUT_IMAGES:-$STUDENT_FINETUNE_IMAGES}
fi
ANSWER_FLAGS=(--data "$HELD_OUT_DATA" ${HELD_OUT_IMAGES:+--image-folder "$HELD_OUT_IMAGES"})

# need_held_out: stop where these conversations are missing, and say how they are made.
need_held_out() {
    if [[ -n ${PRINT_ONLY:-} || -e $HELD_OUT_DATA ]]; then return; fi
    if [[ $PRESET == mini* ]]; then fail "$HELD_OUT_DATA is not there; run scripts/demo.sh, which makes it"; fi
    fail "the held-out conversations $HELD_OUT_DATA are not there. Take them out of the training mix with
    $PYTHON -m align_ti.studies.hold_out --data_path $STUDENT_FINETUNE_DATA --model_name_or_path $STUDENT_LM --version $TEMPLATE
and train students on the rest, STUDENT_FINETUNE_DATA=$MIX_NAME-train$MIX_ENDING; or set HELD_OUT_DATA to a file of yours"
}

# The paper has 1,000 answers of more than 100 tokens; descriptions in the miniature end after 40 to 114.
LENGTH_FLAGS=(--samples 1000 --max-new-tokens 100)
if [[ $PRESET == mini* ]]; then LENGTH_FLAGS=(--samples 150 --max-new-tokens 60 --batch-size 32); fi

GQA=${EVAL_ROOT:-$([[ $PRESET == mini* ]] && echo "$MINI/eval" || echo playground/data/eval)}/gqa
VIEW_FLAGS=(--questions "$GQA/llava_gqa_testdev_balanced.jsonl" --question-images "$GQA/data/images")

# students FLAG NAME RUN FOLDER ...: `FLAG NAME=CHECKPOINT` of the tables' students, of the seeds that all of these have;
# of a run without any in the tables, the one in CHECKPOINTS/FOLDER ("-": there is none).
students() {
    local flag=$1 folder=${TABLES:-$CHECKPOINTS/tables} number found="" checkpoint
    shift
    local -a words=("$@") names=() of_name
    for (( number = 0; number < $#; number += 3 )); do names+=("${words[number]}=${words[number + 1]}"); done
    if [[ -d $folder ]]; then
        found=$("$PYTHON" -m align_ti.studies.tables.students --folder "$folder" "${names[@]}")
    fi
    for (( number = 0; number < $#; number += 3 )); do
        mapfile -t of_name < <(grep "^${words[number]}=" <<< "$found")
        if (( ${#of_name[@]} == 0 )) && [[ ${words[number + 2]} != - ]]; then
            of_name=("${words[number]}=$CHECKPOINTS/${words[number + 2]}")
        fi
        for checkpoint in "${of_name[@]}"; do STUDENTS+=("$flag" "$checkpoint"); done
    done
}
STUDENTS=()

# analyse MODULE FLAGS...: run align_ti.studies.MODULE; the results are named after the script.
analyse() {
    local module=$1 name results=${RESULTS:-$CHECKPOINTS/results}; shift
    name=$(basename "$0" .sh)
    exec_or_run "$PYTHON" -m "align_ti.studies.$module" --out "$results" --name "$name" "$@"
    if [[ -z ${PRINT_ONLY:-} ]]; then echo "written: $results/$name.*" >&2; fi
}
