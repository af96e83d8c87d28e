"""Command-line arguments of the two LLaVA stages, with LLaVA's own flag names."""

import os
import warnings
from dataclasses import dataclass, field
from typing import Literal

import transformers

from llava.console import on_a_terminal
from llava.conversation import TEMPLATES, get_template
from llava.errors import InputError
from llava.train.checkpointing import refuse_reentrant


@dataclass
class ModelArguments:
    """What is trained, and from which weights."""

    model_name_or_path: str = field(metadata={"help": "base language model or LLaVA checkpoint: folder or hub name"})
    version: str = field(default="", metadata={"help": "prompt template, required: plain, v1, qwen, qwen_2, ..."})
    freeze_backbone: bool = field(default=False, metadata={"help": "keep the language model fixed"})
    tune_mm_mlp_adapter: bool = field(default=False, metadata={"help": "stage 1: train the projector only"})
    vision_tower: str | None = field(
        default=None, metadata={"help": "SigLIP or CLIP folder or hub name, timm:NAME, open_clip:NAME"}
    )
    mm_vision_select_layer: int = field(default=-1, metadata={"help": "hidden layer of the tower to use"})
    pretrain_mm_mlp_adapter: str | None = field(default=None, metadata={"help": "mm_projector.bin of stage 1"})
    mm_projector_type: str = field(default="linear", metadata={"help": "linear, mlpNx_gelu (N >= 1) or identity"})
    mm_use_im_start_end: bool = field(
        default=False, metadata={"help": "must stay False: <im_start>/<im_end> are not supported"}
    )
    mm_use_im_patch_token: bool = field(default=True, metadata={"help": "accepted for old scripts; no token is added"})
    mm_patch_merge_type: str = field(
        default="flat", metadata={"help": "flat: all visual tokens of an image in reading order"}
    )
    mm_vision_select_feature: str = field(default="patch", metadata={"help": "patch or cls_patch"})
    attn_implementation: str = field(default="sdpa", metadata={"help": "attention of the language model"})


@dataclass
class DataArguments:
    """Which conversations and images are trained on."""

    data_path: str = field(metadata={"help": "LLaVA-format JSON or JSONL; several files separated by commas"})
    eval_data_path: str | None = field(
        default=None, metadata={"help": "held-out file in the same format, for --eval_strategy"}
    )
    image_folder: str | None = field(default=None, metadata={"help": "folder that image paths are relative to"})
    image_aspect_ratio: str = field(
        default="square", metadata={"help": "square (resize) or pad (to a square, mean colour)"}
    )
    train_on_inputs: float = field(
        default=0.0, metadata={"help": "share of samples whose human turns are also trained on, 0 to 1"}
    )
    lazy_preprocess: bool = field(default=True, metadata={"help": "accepted for old scripts; reading is always lazy"})
    is_multimodal: bool = field(default=True, metadata={"help": "accepted for old scripts"})
    on_bad_sample: Literal["error", "skip"] = field(
        default="error", metadata={"help": "error, or skip: leave the sample out and count it"}
    )


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """transformers' own arguments plus LLaVA's.

    Defaults that differ from transformers': TensorBoard logs, logging every 10 steps, one epoch, no column pruning (the
    collator builds the batch), and automatic resuming.
    """

    model_max_length: int = field(
        default=512, metadata={"help": "maximum sample length in tokens, including visual tokens"}
    )
    freeze_mm_mlp_adapter: bool = field(default=False, metadata={"help": "keep the projector fixed"})
    mm_projector_lr: float | None = field(
        default=None, metadata={"help": "learning rate of the projector, if different"}
    )
    group_by_modality_length: bool = field(
        default=False, metadata={"help": "batches of one modality and similar lengths"}
    )
    group_window: int = field(
        default=1,
        metadata={"help": "optimizer steps over which group_by_modality_length sorts by length; LLaVA uses 1"},
    )
    max_tokens_per_batch: int = field(
        default=0,
        metadata={
            "help": "fill micro-batches up to this many tokens, image tokens included; 0: a fixed number of samples. "
            "An optimizer step trains on the same samples either way"
        },
    )
    resume: str = field(
        default="auto", metadata={"help": "auto: newest complete checkpoint; never; or a checkpoint folder"}
    )
    bits: int = field(default=16, metadata={"help": "16 only"})
    lora_enable: bool = field(default=False, metadata={"help": "train LoRA adapters instead of the language model"})
    lora_r: int = field(default=64, metadata={"help": "rank of the adapters"})
    lora_alpha: int = field(default=16, metadata={"help": "the adapters' update is scaled by lora_alpha / lora_r"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout on the adapters' inputs"})
    lora_weight_path: str = field(default="", metadata={"help": "folder of an adapter to start from"})
    lora_bias: str = field(default="none", metadata={"help": "biases to train as well: none, all, lora_only"})
    eval_benchmarks: str = field(
        default="", metadata={"help": "benchmarks to run at every evaluation: names separated by commas, or all"}
    )
    eval_benchmark_root: str = field(default="", metadata={"help": "folder with a subfolder for each benchmark"})
    eval_benchmark_limit: int = field(
        default=200, metadata={"help": "number of questions per benchmark, evenly spread"}
    )
    expected_processes: int = field(
        default=0, metadata={"help": "processes that the gradient accumulation was computed for; 0: not checked"}
    )
    fuse_layers: bool = field(
        default=False,
        metadata={"help": "on a GPU, run norms, rotary embedding and MLP of the language models in fewer kernels"},
    )
    warmup_ratio: float | None = field(default=None, metadata={"help": "share of the steps used for warm-up"})

    report_to: None | str | list[str] = field(
        default="tensorboard", metadata={"help": "tensorboard, wandb, none, or a list"}
    )
    logging_steps: float = field(default=10, metadata={"help": "steps between log lines"})
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "read every micro-batch's loss, which waits for the GPU; logged losses are checked anyway"},
    )
    num_train_epochs: float = field(default=1.0, metadata={"help": "epochs"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "must stay False"})

    def __post_init__(self) -> None:
        if self.warmup_ratio is not None:
            if not 0 <= self.warmup_ratio < 1:
                raise InputError(f"--warmup_ratio is {self.warmup_ratio}; expected a share in [0, 1)")
            self.warmup_steps = self.warmup_ratio
        if self.bits != 16:
            raise InputError(f"--bits {self.bits} is not supported for training; use --bits 16")
        if self.max_tokens_per_batch < 0:
            raise InputError(f"--max_tokens_per_batch is {self.max_tokens_per_batch}; expected 0 or a number of tokens")
        if self.remove_unused_columns:
            raise InputError("--remove_unused_columns must stay False: batches are built by the collator")
        if self.enable_jit_checkpoint:
            raise InputError(
                "--enable_jit_checkpoint True is not supported: it handles SIGTERM in place of the trainer. "
                "Leave it out: on SIGTERM, SIGUSR1 and Ctrl-C every run saves a checkpoint after the current step and "
                "stops, and the same command resumes from it"
            )
        if self.use_liger_kernel:
            raise InputError(
                "--use_liger_kernel True is not supported: Liger does not know LLaVA's classes, so nothing would "
                "change. Leave it out: --fuse_layers True compiles the layers on a GPU"
            )
        if self.disable_tqdm is None:
            self.disable_tqdm = not on_a_terminal()
        with warnings.catch_warnings():  # gradient_checkpointing has another name from transformers 5.23 on
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
            super().__post_init__()
        refuse_reentrant(self)
        self._check_processes()

    def _check_processes(self) -> None:
        """Reject processes that would train separately, or with a global batch other than the planned one.

        Raises:
            InputError: The launcher started more processes than train together, or an unexpected number of them.
        """
        together, started = self.world_size, int(os.environ.get("WORLD_SIZE", "1"))
        if started != together:
            raise InputError(
                f"the launcher started {started} processes, but only {together} would train together: torch sees no "
                "GPU here, so they are not connected. Start on a machine with GPUs, or add --use_cpu True"
            )
        if self.expected_processes and self.expected_processes != together:
            batch = self.per_device_train_batch_size * self.gradient_accumulation_steps
            raise InputError(
                f"{together} processes train, but the gradient accumulation was computed for "
                f"{self.expected_processes}: the global batch would be {batch * together} instead of "
                f"{batch * self.expected_processes}. Check NUM_GPUS, NUM_NODES and HOSTFILE"
            )


def check_model_arguments(arguments: ModelArguments) -> None:
    """Reject settings that would silently train a different model than requested.

    Raises:
        InputError: The prompt template is missing, ``mm_use_im_start_end`` is set, or the patch merge type is not
            ``flat``.
    """
    if not arguments.version:
        raise InputError(f"--version is missing: the prompt template, one of {', '.join(TEMPLATES)}")
    get_template(arguments.version)
    if arguments.mm_use_im_start_end:
        raise InputError("--mm_use_im_start_end True is not supported: use checkpoints and scripts without it")
    if arguments.mm_patch_merge_type != "flat":
        raise InputError(f"--mm_patch_merge_type {arguments.mm_patch_merge_type!r} is not supported; use 'flat'")
