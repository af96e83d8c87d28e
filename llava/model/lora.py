"""LoRA (Hu et al., 2021) through peft: adapters on the language model's linear layers, and LLaVA's file format.

A folder contains ``adapter_config.json`` and ``adapter_model.safetensors`` in peft's format, the model's
``config.json``, and ``non_lora_trainables.bin`` with the other trained weights (the projector).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llava.errors import InputError
from llava.model.checkpoint import load_projector
from llava.model.weight_files import ADAPTER_FILES, OTHER_WEIGHTS, check_weight_files
from llava.model.zero import gathered, is_main_process

ADAPTER_CONFIG = "adapter_config.json"
TARGETS = r"model\.layers\.\d+\.(self_attn|mlp)\.[a-z]+_proj"
"""The layers that get adapters, by their full names: the tower has layers of the same short names, which get none."""
PEFT_PREFIX = "base_model.model."
"""Prefix of a wrapped model's weight names in peft."""


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("LoRA needs the package peft: pip install 'align-ti[lora]'") from error
    return peft


def add_lora(model: Any, base: str, *, r: int, alpha: int, dropout: float, bias: str, weights: str = "") -> None:
    """Add new adapters to a model, in place; afterwards only they are trainable.

    Args:
        model: Model of this package.
        base: Source of its weights; recorded, so that the adapter can be loaded without naming it again.
        r: Rank.
        alpha: The update is scaled by ``alpha / r``.
        dropout: Dropout on the adapters' inputs during training.
        bias: Biases to train as well: ``none``, ``all`` or ``lora_only``.
        weights: Folder of an adapter to start from; if empty, new adapters that initially change nothing.

    Raises:
        InputError: The peft package is missing, a setting is out of range, or ``weights`` does not fit.
    """
    if r < 1 or not 0 <= dropout < 1 or bias not in ("none", "all", "lora_only"):
        raise InputError(
            f"--lora_r {r}, --lora_dropout {dropout}, --lora_bias {bias}: expected a rank of at least 1, a share in "
            "[0, 1) and one of none, all, lora_only"
        )
    peft = _peft()
    config = peft.LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias=bias,
        target_modules=TARGETS,
        task_type="CAUSAL_LM",
        base_model_name_or_path=_recorded(base),
    )
    model.requires_grad_(False)
    peft.inject_adapter_in_model(config, model)
    if weights:
        load_lora(model, weights)


def has_lora(model: Any) -> bool:
    """Whether this model has adapters from ``add_lora``."""
    return bool(getattr(model, "peft_config", None))


def save_lora(model: Any, folder: str | Path) -> None:
    """Write the adapter, ``config.json`` and the other trained weights.

    Under ZeRO-3 every rank must call it; rank 0 writes.

    Args:
        model: Model with adapters.
        folder: Created if needed.
    """
    folder = Path(folder)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with gathered(trained.values()):
        whole = {name: parameter.detach().cpu().clone() for name, parameter in trained.items()}
    if not is_main_process():
        return
    folder.mkdir(parents=True, exist_ok=True)
    adapter = {name: value for name, value in whole.items() if ".lora_" in name or name.endswith(".bias")}
    adapter = {name: value for name, value in adapter.items() if "mm_projector" not in name}
    save_file(
        {PEFT_PREFIX + name.replace(".default.", "."): value.contiguous() for name, value in adapter.items()},
        folder / ADAPTER_FILES[0],
        metadata={"format": "pt"},
    )
    others = {PEFT_PREFIX + name: value for name, value in whole.items() if name not in adapter}
    torch.save(others, folder / OTHER_WEIGHTS)
    model.peft_config["default"].save_pretrained(folder)
    model.config.save_pretrained(folder)


def load_lora(model: Any, folder: str | Path) -> None:
    """Load an adapter's weights, and the other trained weights next to it, into a model with such adapters.

    Raises:
        InputError: There is no adapter, it is truncated, or its weights do not fit the model.
    """
    folder = Path(folder)
    check_weight_files(folder)
    weights = _adapter_weights(folder)
    try:
        with gathered([parameter for parameter in model.parameters() if parameter.requires_grad], write=True):
            result = _peft().set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        raise InputError(f"{folder}: the adapter does not fit the model; is its rank another? {error}") from error
    fresh = [key for key in result.missing_keys if ".lora_" in key and re.match(TARGETS, key)]
    if result.unexpected_keys or fresh:
        odd = (list(result.unexpected_keys) + fresh)[0]
        raise InputError(f"{folder}: the adapter does not fit the model, for one {odd}; is its base model another?")
    load_others(model, folder)


def load_others(model: Any, folder: Path) -> None:
    """Load ``non_lora_trainables.bin``, if there is one: the projector and any other trained weights.

    Raises:
        InputError: It contains a weight that the model does not have.
    """
    file = folder / OTHER_WEIGHTS
    if not file.is_file():
        return
    weights = {
        name.removeprefix(PEFT_PREFIX): value
        for name, value in torch.load(file, map_location="cpu", weights_only=True).items()
    }
    if any("mm_projector." in name for name in weights):
        load_projector(model, file)
    own = dict(model.named_parameters())
    for name, value in weights.items():
        if "mm_projector." in name:
            continue
        if name not in own or own[name].shape != value.shape:
            raise InputError(f"{file} holds {name} {list(value.shape)}, which the model has not")
        with gathered([own[name]], write=True), torch.no_grad():
            own[name].copy_(value)


def merge_lora(model: Any, folder: Path) -> None:
    """Merge a trained adapter into the weights of its base model, in place.

    Args:
        model: Base model, with a projector.
        folder: Folder of the adapter.

    Raises:
        InputError: The peft package is missing, or the adapter is truncated or does not fit.
    """
    check_weight_files(folder)
    peft = _peft()
    try:
        wrapped = peft.PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{folder}: the adapter does not fit its base model: {error}") from error
    merged = wrapped.merge_and_unload()
    assert merged is model
    load_others(model, folder)


def base_of(folder: Path, model_base: str | Path | None) -> str:
    """The base model of an adapter: the one given, or the one it was trained on.

    A path that does not exist from here is looked up in the folders above the adapter as well.

    Raises:
        InputError: Neither is known.
    """
    if model_base:
        return str(model_base)
    base = _peft().LoraConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise InputError(f"{folder} does not say what its base model is: give it as model_base (--model-base)")
    if not Path(base).exists():  # trained in another working directory: one above the adapter, if both were moved
        above = (parent / base for parent in folder.resolve().parents)
        base = next((str(path) for path in above if (path / "config.json").is_file()), base)
    return str(base)


def _recorded(base: str) -> str:
    """How an adapter names its base model: a hub name as it is, a folder by its path from the working directory.

    Only a folder elsewhere needs its absolute path; others can be moved, or published, together with the adapter.
    """
    if not Path(base).is_dir():
        return base
    path = Path(base).resolve()
    if not path.is_relative_to(Path.cwd()):
        return str(path)
    return f"./{path.relative_to(Path.cwd())}"  # without the dot, a folder of two names could be taken for a hub name


def _adapter_weights(folder: Path) -> dict[str, Tensor]:
    """An adapter's weights, with peft's names."""
    for name in ADAPTER_FILES:
        file = folder / name
        if file.is_file():
            return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    raise InputError(f"no adapter in {folder}: expected {' or '.join(ADAPTER_FILES)}")
