"""The vision tower of a stage, and the run's own copy of it."""

from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedConfig

from llava.errors import InputError
from llava.model.language import LlavaForCausalLM
from llava.model.protocol import vision_tower_of
from llava.model.vision import same_name
from llava.model.vision_tower import anchor_tower
from llava.model.vision_tower.keep import keep_tower
from llava.train.arguments import ModelArguments
from llava.train.interruptions import free_space


def chosen_tower(model_arguments: ModelArguments, config: PreTrainedConfig) -> str:
    """The tower that a run uses: ``--vision_tower``, or the one named by the checkpoint it starts from.

    Args:
        model_arguments: ``model_name_or_path`` and ``vision_tower``.
        config: Configuration of the model at ``model_name_or_path``. In it, a tower's path relative to the checkpoint
            becomes absolute.

    Returns:
        A hub name, ``timm:NAME``, ``open_clip:NAME`` or an absolute path.

    Raises:
        InputError: Neither names a tower.
    """
    anchor_tower(config, model_arguments.model_name_or_path)
    tower = model_arguments.vision_tower or getattr(config, "mm_vision_tower", None)
    if tower is None:
        raise InputError("--vision_tower is missing: name a SigLIP or CLIP model")
    return str(Path(tower).resolve()) if Path(tower).is_dir() else tower


def keeps_tower(tower: str, config: PreTrainedConfig) -> bool:
    """Whether the chosen tower is the checkpoint's own; then the checkpoint may contain its weights."""
    own = getattr(config, "mm_vision_tower", None)
    return own is not None and same_name(tower, own)


def attach_tower(model: LlavaForCausalLM, tower: str, model_arguments: ModelArguments, output_dir: str) -> None:
    """Attach tower and projector to the model, and copy a tower that is a local folder to the run's folder.

    Every process must call it; the main process writes.

    Args:
        model: Language model or LLaVA model.
        tower: Tower returned by :func:`chosen_tower`.
        model_arguments: Type and weights of the projector; layer and feature of the tower.
        output_dir: Folder of the run.

    Raises:
        InputError: The tower cannot be loaded or copied, or the projector weights do not fit.
    """
    model.initialize_vision_modules(
        tower,
        mm_projector_type=model_arguments.mm_projector_type,
        mm_vision_select_layer=model_arguments.mm_vision_select_layer,
        mm_vision_select_feature=model_arguments.mm_vision_select_feature,
        pretrain_mm_mlp_adapter=model_arguments.pretrain_mm_mlp_adapter,
    )
    try:
        model.config.mm_vision_tower = keep_tower(vision_tower_of(model), output_dir)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the copy of the vision tower in {output_dir} could not be written ({error}); "
            f"{free_space(Path(output_dir))}. Free some space, or choose another --output_dir"
        ) from error
