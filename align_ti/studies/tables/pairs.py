"""Tables with their own pair of models or their own teachers."""

from collections.abc import Sequence

from align_ti.recipes.flags import parse_flags, words_of
from align_ti.studies.tables.setting import Setting
from llava.errors import InputError

OWN_PAIRS = {"table9": "qwen3-8b-0.6b", "table10": "vicuna-7b-mobilellama-1.4b"}
"""The default pair of such a table."""


def setting_of(table: str, pair: str | None, flags: Sequence[str]) -> Setting:
    """The setting of a table's students.

    On the miniature, Table 10 is a Llama student under the miniature's teacher. The student's first stage must be
    trained first:

        python -m playground.mini.base_models --data playground/mini/build --also student-llama-lm
        PRESET=mini-llama bash playground/mini/words.sh student
        PRESET=mini-llama bash scripts/student/pretrain.sh

    Args:
        table: Name of the table.
        pair: The pair that the user named, if any.
        flags: Flags for every training.
    """
    if table == "table10" and pair == "mini":
        runs = Setting(pair, tuple(flags)).runs
        own = {"teacher_path": (str(runs / "teacher"),)} | parse_flags(flags) | {"runs": (str(runs / "llama"),)}
        return Setting("mini-llama", tuple(words_of(own)))
    return Setting(pair or OWN_PAIRS.get(table), tuple(flags))


def teachers_of(setting: Setting) -> list[str]:
    """The teachers that Table 9 compares, as ``NAME=CHECKPOINT``. They must exist; on the miniature they are trained by

        python -m playground.mini.base_models --data playground/mini/build --also teacher-small-lm teacher-large-lm
        for size in small large; do
            PRESET=mini-$size-teacher bash playground/mini/words.sh teacher
            for stage in pretrain finetune; do PRESET=mini-$size-teacher bash scripts/teacher/$stage.sh; done
        done

    Raises:
        InputError: The teachers of this pair are unknown.
    """
    pair, runs = setting.places.pair, setting.runs
    if pair == "mini":
        return [f"small={runs}/small/teacher", f"medium={runs}/teacher", f"large={runs}/large/teacher"]
    if pair.startswith("qwen3-") and pair.endswith("-0.6b"):
        return [f"{size}=checkpoints/qwen3-{size}-0.6b/teacher" for size in ("1.7b", "4b", "8b")]
    raise InputError(f"the pair is {pair}; name the teachers to compare: --teachers NAME=CHECKPOINT NAME=CHECKPOINT")
