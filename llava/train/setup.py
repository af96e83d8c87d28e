"""Build model and data from the arguments; shared by the supervised stages and distillation."""

import logging

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.collator import ConversationCollator
from llava.data.dataset import ConversationDataset
from llava.errors import InputError
from llava.model.config import check_own_form
from llava.model.fused_layers import fuse_layers
from llava.model.language import LlavaForCausalLM, language_model_class
from llava.model.lora import add_lora
from llava.model.protocol import vision_tower_of
from llava.model.zero import whole_size
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.evaluation import check_benchmarks
from llava.train.tower import attach_tower, chosen_tower, keeps_tower

logger = logging.getLogger(__name__)


def start_devices(arguments: TrainingArguments) -> None:
    """Prepare the device and, with DeepSpeed, its process group, before any model is loaded.

    ZeRO-3 shards weights while they load, and would otherwise assume a single process.
    """
    # On recent GPUs cuDNN comes first among PyTorch's attentions, and plans for 0.1 s at every new batch shape: in a
    # training nearly every batch has a new one. FlashAttention is as fast and needs no plan.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if arguments.deepspeed:
        import deepspeed

        deepspeed.init_distributed(auto_mpi_discovery=False)


def read_model_config(path: str) -> PreTrainedConfig:
    """The configuration of a language model or LLaVA checkpoint.

    Args:
        path: Folder or hub name.

    Raises:
        InputError: There is none, or it is a LLaVA model in transformers' format, which must be converted first.
    """
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"no model at {path!r} ({error}); expected a model folder or hub name") from error
    check_own_form(config.model_type, path)
    return config


def compute_dtype(arguments: TrainingArguments) -> torch.dtype:
    """The dtype selected by --bf16 and --fp16."""
    return torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32


def load_trainable_model(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
) -> LlavaForCausalLM:
    """Load the model of a stage and freeze the parts that the stage does not train.

    Args:
        model_arguments: ``model_name_or_path`` may be a plain language model (Qwen2, Qwen3, Llama) or a LLaVA
            checkpoint.
        data_arguments: ``image_aspect_ratio`` is recorded in the configuration.
        arguments: Precision, ``freeze_mm_mlp_adapter``, gradient checkpointing.
        tokenizer: Its length limit and padding side are recorded in the configuration.

    Returns:
        The model; the tower is frozen, and with ``tune_mm_mlp_adapter`` everything but the projector.

    Raises:
        InputError: The language model is not supported, or a required tower is not given.
    """
    path = model_arguments.model_name_or_path
    config = read_model_config(path)
    model_class = language_model_class(config.model_type)
    tower = chosen_tower(model_arguments, config)
    # Trained weights stay in float32 unless DeepSpeed keeps its own float32 copy of them.
    dtype = compute_dtype(arguments) if arguments.deepspeed else torch.float32
    model = model_class.from_pretrained(
        path,
        dtype=dtype,
        attn_implementation=model_arguments.attn_implementation,
        load_tower=keeps_tower(tower, config),
    )
    attach_tower(model, tower, model_arguments, str(arguments.output_dir))
    config = model.config
    config.image_aspect_ratio = data_arguments.image_aspect_ratio
    config.mm_patch_merge_type = model_arguments.mm_patch_merge_type
    config.mm_use_im_start_end = config.mm_use_im_patch_token = False
    config.tokenizer_padding_side = "right"
    config.tokenizer_model_max_length = arguments.model_max_length
    config.mm_template = model_arguments.version
    config.use_cache = False
    model.generation_config.do_sample = False
    model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None
    if arguments.lora_enable:
        add_adapters(model, model_arguments, arguments)
    freeze(model, model_arguments, arguments)
    if arguments.ddp_find_unused_parameters is None:  # every parameter gets a gradient in every batch
        arguments.ddp_find_unused_parameters = False
    if arguments.fuse_layers:
        fuse_layers(model, arguments.device)
    return model


def add_adapters(model: LlavaForCausalLM, model_arguments: ModelArguments, arguments: TrainingArguments) -> None:
    """``--lora_enable``: adapters and the projector are trained, the language model's own weights are not.

    Raises:
        InputError: Combined with a flag that freezes the language model.
    """
    if model_arguments.tune_mm_mlp_adapter or model_arguments.freeze_backbone:
        raise InputError(
            "--lora_enable trains adapters in the language model, but --tune_mm_mlp_adapter and --freeze_backbone "
            "freeze it: leave one of them out"
        )
    add_lora(
        model,
        model_arguments.model_name_or_path,
        r=arguments.lora_r,
        alpha=arguments.lora_alpha,
        dropout=arguments.lora_dropout,
        bias=arguments.lora_bias,
        weights=arguments.lora_weight_path,
    )
    model.get_model().mm_projector.requires_grad_(True)


def freeze(model: LlavaForCausalLM, model_arguments: ModelArguments, arguments: TrainingArguments) -> None:
    """Freeze the parts that a stage does not train: always the tower, and those named by the flags."""
    projector = model.get_model().mm_projector
    if model_arguments.tune_mm_mlp_adapter or model_arguments.freeze_backbone:
        model.requires_grad_(False)
        projector.requires_grad_(True)
    vision_tower_of(model).requires_grad_(False)
    if arguments.freeze_mm_mlp_adapter:
        projector.requires_grad_(False)
    trained = sum(whole_size(parameter) for parameter in model.parameters() if parameter.requires_grad)
    if trained == 0:
        raise InputError("nothing is left to train: --freeze_mm_mlp_adapter leaves only frozen parts")
    logger.info("training %s of %s parameters", f"{trained:,}", f"{sum(map(whole_size, model.parameters())):,}")


def build_datasets(
    tokenizer: PreTrainedTokenizerBase,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainingArguments,
) -> tuple[ConversationDataset, ConversationDataset | None]:
    """The training and held-out datasets, checked before a model is loaded; attach the tower afterwards.

    Raises:
        InputError: The template or ``on_bad_sample`` is unknown, a file cannot be read, or images or benchmarks are
            missing.
    """
    check_benchmarks(arguments.eval_benchmarks, arguments.eval_benchmark_root)
    paths = (data_arguments.data_path, data_arguments.eval_data_path)
    if arguments.eval_strategy != "no" and not paths[1]:
        raise InputError(
            f"--eval_strategy {arguments.eval_strategy} needs --eval_data_path, a file of held-out samples"
        )
    data, held_out = (
        _build_dataset(path, tokenizer, model_arguments, data_arguments, arguments) if path else None for path in paths
    )
    assert data is not None
    return data, held_out


def _build_dataset(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: TrainingArguments,
) -> ConversationDataset:
    dataset = ConversationDataset(
        open_annotations(path),
        tokenizer,
        get_template(model_arguments.version),
        tower_later=True,
        image_folder=data_arguments.image_folder,
        image_aspect_ratio=data_arguments.image_aspect_ratio,
        model_max_length=arguments.model_max_length,
        train_on_inputs=data_arguments.train_on_inputs if path == data_arguments.data_path else 0.0,
        on_bad_sample=data_arguments.on_bad_sample,
    )
    dataset.look_for_images()
    return dataset


def build_collator(tokenizer: PreTrainedTokenizerBase) -> ConversationCollator:
    """The collator of training batches (right padding)."""
    return ConversationCollator(tokenizer.pad_token_id, padding_side="right")
