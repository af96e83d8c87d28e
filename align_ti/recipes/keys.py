"""The keys of a recipe or a pair that are not flags of the trainer, with descriptions."""

from collections.abc import Mapping
from types import MappingProxyType

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "pair": "Name of the pair of models.",
        "runs": "Folder of the pair's runs.",
        "data_root": "Folder of the data.",
        "teacher_lm": "Language model that the teacher's first stage starts from.",
        "student_lm": "Language model that the student's first stage starts from.",
        "teacher_base": "On the miniature: language model from which `teacher_lm` is made.",
        "student_base": "On the miniature: language model from which `student_lm` is made.",
    }
)
"""Keys that other values may refer to, as in ``${runs}/teacher``."""

KEYS: Mapping[str, str] = MappingProxyType(
    {
        **NAMES,
        "base": "Recipe (or pair) that gives the values missing in this file; a path relative to this file or to "
        "scripts/recipes.",
        "script": "Script that runs the recipe; messages name it if its result is missing.",
        "module": "Training module, run with `python -m`.",
        "pair_sections": "Sections of a pair's file that change this recipe; a later one wins.",
        "prepared": "`data_path` and `image_folder` that replace the recipe's if that data file exists.",
        "in_plans": "Flags, and the path that `align-ti plan` uses while a flag's own file or folder is missing; of a "
        "list, the first that exists, else the last.",
        "global_batch": "Samples per optimizer step, over all processes. The accumulation steps are computed from it.",
        "per_device_train_batch_size": "Samples per process and forward pass, or `share` for an even share of the "
        "global batch.",
        "data_share": "Percentage of `num_train_epochs` to train.",
        "needs_gpu": "Whether the recipe is rejected on a machine without a GPU.",
        "cpu_processes": "Train on the CPU unless NUM_GPUS is set, in this many processes of one thread each if there "
        "are as many cores. CPU_PROCESSES sets another number.",
        "eval_root": "Folder of the benchmarks.",
        "eval_conv_mode": "Prompt template of an evaluation; if empty, the one that the checkpoint was tuned with.",
        "eval_batch_size": "Questions per batch.",
        "held_out_data": "Conversations that no student trains on.",
        "held_out_images": "Folder that the paths of their images are relative to.",
        "held_out_samples": "Number of them that Figs. 2 and 6 use.",
        "held_out_max_new_tokens": "Generation steps of Figs. 2 and 6.",
        "held_out_batch_size": "Conversations per batch in Figs. 2 and 6.",
        "picture": "Image that the models of Table 17 are asked about.",
        "question": "Question about this image.",
        "cost_preset": "Sizes of the models of Table 4: `--preset` of align_ti.studies.cost.",
    }
)
"""All keys that are not flags. ``per_device_train_batch_size`` is a flag too, but here its value may be a word."""

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "all": "All stages.",
        "pretrain": "Stage 1 of teacher and student.",
        "finetune": "Stage 2 of teacher and student, including distillation.",
        "teacher": "Both stages of the teacher.",
        "student": "Both stages of the student, including distillation.",
        "teacher-pretrain": "Stage 1 of the teacher.",
        "teacher-finetune": "Stage 2 of the teacher.",
        "student-pretrain": "Stage 1 of the student.",
        "student-finetune": "Stage 2 of the student: SFT and distillation.",
        "distill": "Stage 2 of the student under a teacher.",
        "words": "The miniature's stages before stage 1, on text only.",
        "studies": "Data and settings for evaluating and measuring finished models.",
    }
)
"""Sections of a pair's file; a recipe's ``pair_sections`` may name others."""

MAPPINGS = ("prepared", "in_plans")
"""Keys whose value is a mapping."""

GIVEN = frozenset(
    {*NAMES, "global_batch", "data_share"} - {"pair"} | {key for key in KEYS if key.startswith(("eval_", "held_out_"))}
)
"""Keys that may be given on the command line like flags; ``--pair`` selects a file."""
