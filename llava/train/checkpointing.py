"""Non-reentrant gradient checkpointing, whatever the default of transformers or torch."""

import transformers

from llava.errors import InputError

KWARGS = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
"""transformers' flag since 5.23, and its older name."""


def refuse_reentrant(arguments: transformers.TrainingArguments) -> None:
    """Set ``use_reentrant`` to False in the checkpointing arguments if it is not set.

    Raises:
        InputError: ``use_reentrant`` is true.
    """
    for name in KWARGS:
        if not hasattr(arguments, name):
            continue
        kwargs = {"use_reentrant": False, **(getattr(arguments, name) or {})}
        if kwargs["use_reentrant"] is not False:
            raise InputError(
                f"--{' or --'.join(KWARGS)}: use_reentrant is {kwargs['use_reentrant']!r}; it must be false. Reentrant "
                "checkpointing loses gradients: those of layers whose inputs take none (a frozen embedding), and those "
                "through the keys and values that are kept for TPA. Leave it out"
            )
        setattr(arguments, name, kwargs)
