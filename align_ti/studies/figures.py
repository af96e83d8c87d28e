"""The paper's figures and tables that measure finished models: the program and its flags for each.

Students of the tables (``align-ti table table5``) are used if there are any, with the seeds that all of them have;
otherwise those trained by ``scripts/distill``.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from align_ti.launch.module import run_module
from align_ti.launch.stages import show
from align_ti.recipes.flags import parse_flags, words_of
from align_ti.recipes.keys import GIVEN
from align_ti.studies.common.evaluations import named_scores
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.students import find_students
from llava.cores import cores
from llava.errors import InputError

OF_RECIPES = {*GIVEN, "teacher_path", "data_path", "image_folder", "version", "model_name_or_path"}
"""Flags that the recipes read; others are passed to the program."""


@dataclass(frozen=True)
class Students:
    """The students of a run.

    Attributes:
        name: Name in the figure.
        run: Name of the run in the tables.
        folder: Folder of the run of ``scripts/distill`` in the pair's runs; "" if there is none.
    """

    name: str
    run: str
    folder: str = ""


SFT = Students("SFT", "sft", "student-sft")
VANILLA_KD = Students("vanilla KD", "sft+kd", "student-vanilla-kd")
ALIGN_TI = Students("Align-TI", "sft+kd+iva+tpa", "student-align-ti")


@dataclass(frozen=True)
class Measurement:
    """One figure or table and the location of its models.

    Attributes:
        name: Name of the results.
        setting: The pair, and flags of recipes.
        tables: Folder of the tables' students.
    """

    name: str
    setting: Setting
    tables: Path

    @property
    def teacher(self) -> list[str]:
        """``--model teacher=CHECKPOINT``."""
        return ["--model", f"teacher={self.setting.teacher}"]

    def run(self, folder: str) -> str:
        """Folder of a run of ``scripts/distill``."""
        return str(self.setting.runs / folder)

    def students(self, flag: str, *wanted: Students) -> list[str]:
        """``FLAG NAME=CHECKPOINT`` of every student."""
        found = {}
        if self.tables.is_dir():
            found = find_students(self.tables, {of.name: of.run for of in wanted}, self.setting)
        words = []
        for of in wanted:
            paths = [str(trial.model) for trial in found.get(of.name, [])]
            for path in paths or ([self.run(of.folder)] if of.folder else []):
                words += [flag, f"{of.name}={path}"]
        return words

    @property
    def data(self) -> list[str]:
        """Flags of the students' training data."""
        recipe = self.setting.places
        return ["--data", recipe.text("data_path"), "--image-folder", recipe.text("image_folder")]

    @property
    def views(self) -> list[str]:
        """Flags of the images to show, which are GQA's."""
        gqa = Path(self.setting.places.text("eval_root")) / "gqa"
        questions = gqa / "llava_gqa_testdev_balanced.jsonl"
        return ["--questions", str(questions), "--question-images", str(gqa / "data" / "images")]

    @property
    def held_out(self) -> tuple[str, str]:
        """Conversations that no student trains on, and the folder of their images.

        At full scale these are 1,000 conversations of the student's mix, which ``align-ti data hold-out`` separates:
        MIX.json is split into MIX-held-out.json and MIX-train.json.
        """
        recipe = self.setting.places
        if recipe.text("held_out_data"):
            return recipe.text("held_out_data"), recipe.text("held_out_images")
        stem, ending = split_mix(recipe.text("data_path"))
        return f"{stem}-held-out{ending}", recipe.text("held_out_images") or recipe.text("image_folder")

    def answers(self) -> list[str]:
        """Flags of the held-out conversations and of the answers to them."""
        recipe, (data, images) = self.setting.places, self.held_out
        flags = ["--data", data, *(["--image-folder", images] if images else [])]
        flags += [
            "--samples",
            recipe.text("held_out_samples"),
            "--max-new-tokens",
            recipe.text("held_out_max_new_tokens"),
        ]
        batch = recipe.text("held_out_batch_size")
        return [*flags, "--batch-size", batch] if batch else flags

    def need_held_out(self) -> None:
        """Stop if the held-out conversations are missing.

        Raises:
            InputError: They are missing; the message has the command that makes them.
        """
        recipe, (data, _) = self.setting.places, self.held_out
        if Path(data).exists():
            return
        if recipe.pair.startswith("mini"):
            raise InputError(f"{data} does not exist; run scripts/demo.sh, which makes it")
        stem, ending = split_mix(recipe.text("data_path"))
        raise InputError(
            f"the held-out conversations {data} do not exist. Take them out of the training mix with\n"
            f"    python -m align_ti.studies.hold_out --data_path {recipe.text('data_path')} --model_name_or_path "
            f"{recipe.text('student_lm')} --version {recipe.text('version')}\n"
            f"and train students on the rest, --data_path {stem}-train{ending}; or name a file with --held_out_data"
        )


def split_mix(data_path: str) -> tuple[str, str]:
    """The first file of a mix without ``-train``, and its ending."""
    first = Path(data_path.split(",")[0].strip())
    return str(first.with_suffix("")).removesuffix("-train"), first.suffix


def figure2(of: Measurement) -> list[str]:
    """Training-time and test-time accumulated error of the vanilla-KD student (Fig. 2, right)."""
    return [
        "exposure_bias",
        "--teacher",
        of.setting.teacher,
        *of.students("--student", VANILLA_KD),
        *of.answers(),
    ]


def figure4(of: Measurement) -> list[str]:
    """IRS by layer of teacher and students, and the number of pairs of inputs that it needs (Fig. 4)."""
    models = [("SFT", "student-sft"), ("Align-TI", "student-align-ti")]
    students = [word for name, folder in models for word in ("--model", f"{name}={of.run(folder)}")]
    return ["attention.relevance", *of.teacher, *students, *of.data]


def figure6(of: Measurement) -> list[str]:
    """%ExAccErr by generation step of the students of SFT, vanilla KD, TPA (if table5 has trained it) and Align-TI."""
    students = of.students("--student", SFT, VANILLA_KD, Students("TPA", "sft+kd+tpa"), ALIGN_TI)
    return ["exposure_bias", "--teacher", of.setting.teacher, *students, *of.answers()]


def figure7(of: Measurement) -> list[str]:
    """Where the instruction attends (Fig. 7): teacher and students without IVA, with IVA and with uniform alignment, on
    images with two questions each, and the similarity of the students' maps to the teacher's; all in the layer with the
    teacher's highest IRS."""
    more = Students("KD + uniform", "uniform"), Students("KD + IVA", "sft+kd+iva")
    students = of.students("--model", VANILLA_KD, *more, ALIGN_TI)
    return ["attention.report", *of.teacher, *students, *of.data, *of.views]


def figure10(of: Measurement) -> list[str]:
    """Where the instruction attends in every layer of the teacher (Fig. 10)."""
    return ["attention.report", *of.teacher, "--layers", "all", *of.views]


def table17(of: Measurement) -> list[str]:
    """Size, memory and speed of teacher and student (Table 17)."""
    picture, question = of.setting.places.text("picture"), of.setting.places.text("question")
    models = {"teacher": of.setting.teacher, "Align-TI": of.run("student-align-ti")}
    named = [word for name, path in models.items() for word in ("--model", f"{name}={path}")]
    scores = [word for pair in named_scores(models) for word in ("--scores", pair)]
    return ["cost.inference", *named, *(["--image", picture] if picture else []), "--question", question, *scores]


def table4(of: Measurement) -> list[str]:
    """Training cost of vanilla KD, +IVA, +TPA, Align-TI and GKD (Table 4), in one interleaved run: at the paper's sizes
    on a large GPU; for the miniature's pair at a laptop's sizes, with the candidate rows per step of its own run."""
    preset = of.setting.places.text("cost_preset")
    rows = [] if preset == "paper" else ["--rows_from", of.run("student-align-ti")]
    return ["cost", "--preset", preset, *rows]


FIGURES: Mapping[str, Callable[[Measurement], list[str]]] = {
    measure.__name__: measure for measure in (figure2, figure4, figure6, figure7, figure10, table4, table17)
}
"""Measurements of finished models by name: a module of ``align_ti.studies`` and its flags."""
ON_ALL_CORES = ("table4", "table17")


def command_of(name: str, pair: str | None, words: Sequence[str], needs: bool = True) -> list[str]:
    """The module that measures a figure or table, and its arguments.

    Args:
        name: One of ``FIGURES``.
        pair: The pair of models, if the user names one.
        words: ``--folder DIR`` of the tables, flags of recipes, and flags of the program, which take precedence.
        needs: Whether missing data is an error.

    Raises:
        InputError: There is no such pair, or a model or data is missing.
    """
    given = parse_flags(words)
    of_recipes = {flag: given.pop(flag) for flag in list(given) if flag in OF_RECIPES}
    setting = Setting(pair, tuple(words_of(of_recipes)))
    tables = Path(" ".join(given.pop("folder", ())) or setting.runs / "tables")
    measurement = Measurement(name, setting, tables)
    if needs and name in ("figure2", "figure6"):
        measurement.need_held_out()
    module, *own = FIGURES[name](measurement)
    if name == "table17" and "--image" not in own and "image" not in given:
        raise InputError("give --image, an image that the models are asked about")
    own += ["--out", str(setting.runs / "results"), "--name", name]
    return [f"align_ti.studies.{module}", *own, *words_as_given(words, given)]


def words_as_given(words: Sequence[str], kept: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of the flags that are kept, with their original spelling."""
    chosen, keep = [], False
    for word in words:
        if word.startswith("--") and len(word) > 2:
            keep = word[2:].partition("=")[0].replace("-", "_") in kept
        if keep:
            chosen.append(word)
    return chosen


def measure(name: str, pair: str | None, words: Sequence[str], printed: bool) -> int:
    """Measure a figure or table, or print the command.

    Returns:
        Exit status.

    Raises:
        InputError: See :func:`command_of`.
    """
    module, *rest = command_of(name, pair, words, needs=not printed)
    if printed:
        return show([sys.executable, "-m", module, *rest])
    if name in ON_ALL_CORES:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    try:
        status = run_module(module, rest)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    if not status:
        out = parse_flags(rest)["out"][0]
        sys.stderr.write(f"written: {out}/{name}.*\n")
    return status
