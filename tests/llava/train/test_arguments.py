"""Flags of the supervised stages: what they mean together, and what is refused."""

from dataclasses import fields

import pytest

from llava.errors import InputError
from llava.train.arguments import TrainingArguments
from llava.train.checkpointing import KWARGS
from llava.train.parsing import parse_arguments

KNOWN = [name for name in KWARGS if name in {field.name for field in fields(TrainingArguments)}]


def parsed(*flags: str) -> TrainingArguments:
    (arguments,) = parse_arguments(TrainingArguments, argv=["--output_dir", "run", "--use_cpu", "True", *flags])
    return arguments


def test_a_second_handler_of_signals_is_refused():
    """transformers' just-in-time checkpoint and this trainer's own would replace each other's handler of SIGTERM."""
    with pytest.raises(InputError, match="--enable_jit_checkpoint.*SIGTERM.*saves a checkpoint"):
        parsed("--enable_jit_checkpoint", "True")
    assert not parsed("--enable_jit_checkpoint", "False").enable_jit_checkpoint


def test_liger_s_kernels_would_be_nothing():
    with pytest.raises(InputError, match="--use_liger_kernel.*nothing would change.*--fuse_layers"):
        parsed("--use_liger_kernel", "True")


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("value", ["true", "1", '"yes"', "null"])
def test_reentrant_checkpointing_is_refused(name, value):
    with pytest.raises(InputError, match=f"--{name}.*use_reentrant is .*must be false.*frozen"):
        parsed("--gradient_checkpointing", "True", f"--{name}", f'{{"use_reentrant": {value}}}')


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("given", [None, "{}", '{"preserve_rng_state": false}', '{"use_reentrant": false}'])
def test_checkpointing_is_never_left_to_a_default(name, given):
    """All names that a release of transformers may read say so."""
    arguments = parsed("--gradient_checkpointing", "True", *([] if given is None else [f"--{name}", given]))
    for other in KNOWN:
        kwargs = getattr(arguments, other)
        assert kwargs["use_reentrant"] is False
        assert kwargs.get("preserve_rng_state", True) == ("preserve" not in (given or ""))
