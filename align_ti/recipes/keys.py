"""The keys of a recipe or a pair that are not flags of the trainer, and what each means."""

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
"""Keys that other values may name, as ``${runs}/teacher``."""

KEYS: Mapping[str, str] = MappingProxyType(
    {
        **NAMES,
        "base": "Recipe (or pair) whose values hold where this file has none: a file, beside this one or of "
        "scripts/recipes.",
        "script": "Script that runs the recipe; named where its result is missing.",
        "module": "Module that trains, run with `python -m`.",
        "pair_sections": "Sections of a pair's file that change this recipe; a later one wins.",
        "prepared": "`data_path` and `image_folder` that take the place of the recipe's if that data file is there.",
        "in_plans": "Flags and what `align-ti plan` counts while their file or folder is missing: of a list, the first "
        "that is there, else the last.",
        "global_batch": "Samples of one optimizer step, over all processes. The accumulation steps follow from it.",
        "per_device_train_batch_size": "Samples of one process in one forward pass, or `share`: an even share of the "
        "global batch.",
        "data_share": "Percent of `num_train_epochs` that is trained.",
        "needs_gpu": "Whether the recipe is refused where there is no GPU.",
        "cpu_processes": "Train on the CPU unless NUM_GPUS asks for GPUs, in this many processes of one thread each "
        "where there are as many cores. CPU_PROCESSES sets another number.",
        "eval_root": "Folder of the benchmarks.",
        "eval_conv_mode": "Prompt template of an evaluation; empty: the one that the checkpoint was tuned with.",
        "eval_batch_size": "Questions answered at a time.",
        "held_out_data": "Conversations that no student trains on.",
        "held_out_images": "Folder that the paths of their images start from.",
        "held_out_samples": "How many of them Figs. 2 and 6 take.",
        "held_out_max_new_tokens": "Generation steps of Figs. 2 and 6.",
        "held_out_batch_size": "Conversations at a time in Figs. 2 and 6.",
        "picture": "Image that the models of Table 17 are asked about.",
        "question": "What they are asked.",
        "cost_preset": "Sizes of the models of Table 4: `--preset` of align_ti.studies.cost.",
    }
)
"""All keys that are not flags, but ``per_device_train_batch_size``, a flag whose value may be a word here."""

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "all": "Every stage.",
        "pretrain": "Stage 1 of teacher and student.",
        "finetune": "Stage 2 of teacher and student, distillation included.",
        "teacher": "Both stages of the teacher.",
        "student": "Both stages of the student, distillation included.",
        "teacher-pretrain": "Stage 1 of the teacher.",
        "teacher-finetune": "Stage 2 of the teacher.",
        "student-pretrain": "Stage 1 of the student.",
        "student-finetune": "Stage 2 of the student: SFT and distillation.",
        "distill": "Stage 2 of the student under a teacher.",
        "words": "The miniature's stages before stage 1, on texts alone.",
        "studies": "What finished models are evaluated and measured on.",
    }
)
"""Sections of a pair's file; a recipe's ``pair_sections`` may name others."""

MAPPINGS = ("prepared", "in_plans")
"""Keys whose value is a mapping."""

GIVEN = frozenset(
    {*NAMES, "global_batch", "data_share"} - {"pair"} | {key for key in KEYS if key.startswith(("eval_", "held_out_"))}
)
"""Keys that a command line may give as it gives flags; ``--pair`` chooses a file."""
