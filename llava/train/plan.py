"""``--dry_run``: what a run would do and need, worked out from configurations alone.

No weight is loaded and nothing is allocated. Memory is an estimate by part; the formulas are in ``memory``.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import HfArgumentParser, PreTrainedConfig, SiglipVisionModel

from llava.data.annotations import open_annotations
from llava.errors import InputError
from llava.model.language import language_model_class
from llava.model.lora import TARGETS
from llava.model.projector import build_projector
from llava.train.arguments import DataArguments, ModelArguments
from llava.train.shapes import read_config

GIB = 2**30
LOGITS_BYTES = 6 * 64 * 2**20
"""The chunks of logits that the losses hold at once (``align_ti.divergence``, ``llava.model.loss``)."""


@dataclass
class PlanArguments:
    """The flags of a run that a plan depends on, and two of its own. All others are passed over."""

    output_dir: str = ""
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    num_train_epochs: float = 1.0
    max_steps: int = -1
    model_max_length: int = 512
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = False
    freeze_mm_mlp_adapter: bool = False
    deepspeed: str | None = None
    lora_enable: bool = False
    lora_r: int = 64
    dry_run: bool = True
    plan_gpus: int = field(default=1, metadata={"help": "--dry_run: processes the run would have"})
    plan_memory_gib: float = field(default=80.0, metadata={"help": "--dry_run: memory of one GPU"})


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a vision-language model by part, and the widths that memory depends on.

    ``adapted`` is the parameters of LoRA adapters of rank 1: inputs and outputs of the layers that get one.
    """

    name: str
    tower: int
    projector: int
    embedding: int
    layers: int
    head: int
    config: PreTrainedConfig
    visual_tokens: int
    adapted: int
    guessed: bool

    @property
    def language(self) -> int:
        """Parameters of the language model; a tied head counts once."""
        return self.embedding + self.layers + self.head

    @property
    def total(self) -> int:
        """All parameters."""
        return self.tower + self.projector + self.language


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def model_size(name: str, tower: str | None, projector: str) -> ModelSize:
    """Sizes of a language model or LLaVA checkpoint with a tower and a projector, from their configurations.

    Raises:
        InputError: no tower is named, or a configuration cannot be had.
    """
    config, guessed = read_config(name)
    tower = tower or getattr(config, "mm_vision_tower", None)
    if tower is None:
        raise InputError("--vision_tower is missing: name the SigLIP or CLIP model that sees the images")
    tower_config, tower_guessed = read_config(tower)
    vision: Any = getattr(tower_config, "vision_config", tower_config)
    model_class = language_model_class(config.model_type)
    values = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "mm_vision_tower")}
    plain = model_class.config_class(**values)
    with torch.device("meta"):
        model = model_class(plain)
        plain.mm_hidden_size, plain.mm_projector_type = vision.hidden_size, projector
        bridge = build_projector(plain)
        seen = SiglipVisionModel(vision) if vision.model_type == "siglip_vision_model" else None
    embedding = count(model.get_input_embeddings())
    return ModelSize(
        name=name,
        tower=count(seen) if seen is not None else 0,
        projector=count(bridge),
        embedding=embedding,
        layers=count(model.model) - embedding,
        head=0 if plain.tie_word_embeddings else count(model.lm_head),
        config=plain,
        visual_tokens=(vision.image_size // vision.patch_size) ** 2,
        adapted=sum(
            module.in_features + module.out_features
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(TARGETS, path)
        ),
        guessed=guessed or tower_guessed,
    )


def zero_stage(file: str | None) -> tuple[int, bool]:
    """Stage of a DeepSpeed JSON (0 without one), and whether it puts the optimizer into CPU memory.

    Raises:
        InputError: the file is no DeepSpeed JSON.
    """
    if file is None:
        return 0, False
    try:
        zero = json.loads(Path(file).read_text()).get("zero_optimization", {})
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"--deepspeed {file}: not a DeepSpeed JSON ({error})") from error
    return int(zero.get("stage", 0)), zero.get("offload_optimizer", {}).get("device", "none") != "none"


def memory(
    size: ModelSize, trained: int, arguments: PlanArguments, teacher: ModelSize | None = None, sharded: bool = False
) -> dict[str, float]:
    """Bytes of one GPU by part.

    Weights and gradients take 2 bytes a parameter in half precision under DeepSpeed (4 otherwise), AdamW 8 and its
    float32 master copy 4 more under DeepSpeed; ZeRO-1 divides the optimizer, ZeRO-2 the gradients too, ZeRO-3 the
    weights too, by the number of GPUs. With gradient checkpointing a layer leaves its input, and one layer is whole at
    a time; a whole layer keeps about ``10 hidden + 3 intermediate`` numbers a token. The teacher keeps keys and values
    of one pass.
    """
    gpus = arguments.plan_gpus
    stage, offload = zero_stage(arguments.deepspeed)
    half = arguments.bf16 or arguments.fp16
    wide = 2 if half and arguments.deepspeed else 4
    tokens = arguments.per_device_train_batch_size * arguments.model_max_length
    config = size.config
    number = 2 if half else 4
    layer = tokens * (10 * config.hidden_size + 3 * config.intermediate_size) * number
    layers = config.num_hidden_layers
    inputs = tokens * config.hidden_size * number
    parts = {
        "weights": (size.total + adapters(size, arguments)) * wide / (gpus if stage >= 3 else 1),
        "gradients": trained * wide / (gpus if stage >= 2 else 1),
        "optimizer": 0.0 if offload else trained * (12 if arguments.deepspeed else 8) / (gpus if stage >= 1 else 1),
        "activations": float(layers * inputs + layer if arguments.gradient_checkpointing else layers * layer),
        "logits": float(LOGITS_BYTES),
    }
    if teacher is not None:
        shape = teacher.config
        heads = shape.num_key_value_heads * getattr(shape, "head_dim", shape.hidden_size // shape.num_attention_heads)
        parts["teacher weights"] = (teacher.total - teacher.tower) * number / (gpus if sharded else 1)
        kept = 2 * heads * shape.num_hidden_layers + 10 * shape.hidden_size + 3 * shape.intermediate_size
        parts["teacher activations"] = float(tokens * kept * number)
    return parts


def steps(samples: int, arguments: PlanArguments) -> int:
    """Optimizer steps of the run."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    rank = math.ceil(samples / arguments.plan_gpus)
    micro = math.ceil(rank / arguments.per_device_train_batch_size)
    return math.ceil(arguments.num_train_epochs * max(1, math.ceil(micro / arguments.gradient_accumulation_steps)))


def adapters(size: ModelSize, arguments: PlanArguments) -> int:
    """Parameters of the LoRA adapters; 0 without ``--lora_enable``."""
    return arguments.lora_r * size.adapted if arguments.lora_enable else 0


def trained_parameters(size: ModelSize, model: ModelArguments, arguments: PlanArguments) -> int:
    """Parameters that get gradients: the projector's and the language model's, of which LLaVA's stage 1 leaves out the
    latter and LoRA trains adapters instead; never the tower's."""
    projector = 0 if arguments.freeze_mm_mlp_adapter else size.projector
    if arguments.lora_enable:
        return projector + adapters(size, arguments)
    return projector + (0 if model.tune_mm_mlp_adapter or model.freeze_backbone else size.language)


def plan(
    model: ModelArguments,
    data: DataArguments,
    arguments: PlanArguments,
    teacher_path: str | None = None,
    sharded: bool = False,
) -> str:
    """The plan as text.

    Args:
        model, data, arguments: the run's flags.
        teacher_path: of a distillation.
        sharded: whether the teacher is split over the GPUs.

    Raises:
        InputError: a configuration or the data cannot be read.
    """
    size = model_size(model.model_name_or_path, model.vision_tower, model.mm_projector_type)
    teacher = None if teacher_path is None else model_size(teacher_path, model.vision_tower, model.mm_projector_type)
    trained = trained_parameters(size, model, arguments)
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.plan_gpus
    lines = [
        f"model          {size.name}: {size.total / 1e9:.3f} B parameters (tower {size.tower / 1e9:.3f}, projector "
        f"{size.projector / 1e9:.4f}, language model {size.language / 1e9:.3f})",
        f"trained        {trained:,}; frozen {size.total + adapters(size, arguments) - trained:,}",
    ]
    if teacher is not None:
        lines.append(f"teacher        {teacher.name}: {teacher.total / 1e9:.3f} B parameters, frozen")
    lines.append(
        f"batch          {batch} = {arguments.per_device_train_batch_size} a GPU x {arguments.plan_gpus} GPUs x "
        f"{arguments.gradient_accumulation_steps} accumulation steps"
    )
    lines += _data_lines(data, arguments, batch, size.visual_tokens)
    parts = memory(size, trained, arguments, teacher, sharded)
    total = sum(parts.values())
    lines.append(f"memory a GPU   {total / GIB:.1f} GiB of {arguments.plan_memory_gib:g}, at the longest samples:")
    lines += [f"  {name:<20}{value / GIB:8.2f} GiB" for name, value in parts.items()]
    fits = total <= 0.9 * arguments.plan_memory_gib * GIB
    lines.append(
        "fits           " + ("yes" if fits else "no: lower the per-device batch, or use a higher ZeRO stage or offload")
    )
    if size.guessed or (teacher is not None and teacher.guessed):
        lines.append("note           shapes of models that could not be reached are those of their published configs")
    return "\n".join(lines)


def _data_lines(data: DataArguments, arguments: PlanArguments, batch: int, visual_tokens: int) -> list[str]:
    """Samples, steps and tokens; what is missing is said."""
    files = [Path(part) for part in data.data_path.split(",")]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        return [f"data           not there yet: {', '.join(missing)}; one image is {visual_tokens} tokens"]
    samples = len(open_annotations(data.data_path))
    total = steps(samples, arguments)
    longest = total * batch * arguments.model_max_length
    return [
        f"data           {samples:,} samples; one image is {visual_tokens} tokens",
        f"steps          {total:,}; at most {longest / 1e9:.3g} B tokens ({arguments.model_max_length} a sample)",
    ]


def plan_asked_for(argv: Sequence[str] | None = None) -> bool:
    """Whether the command line holds ``--dry_run`` (and not ``--dry_run False``)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for index, argument in enumerate(argv):
        flag, _, value = argument.partition("=")
        if flag == "--dry_run":
            return (value or "".join(argv[index + 1 : index + 2])).lower() not in ("false", "0", "no")
    return False


def parse_plan(*classes: type) -> tuple[Any, ...]:
    """The plan's flags and those of further dataclasses; flags that a plan does not depend on are passed over.

    transformers' own arguments are not parsed: they would ask for the GPUs that the run is planned for.
    """
    every: Any = [PlanArguments, ModelArguments, DataArguments, *classes]
    parser = HfArgumentParser(every)
    return parser.parse_args_into_dataclasses(return_remaining_strings=True)[:-1]
