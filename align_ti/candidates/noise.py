"""Random numbers for the draws, tied to the samples and not to the process that handles them.

A sample gets the same draws in a step however the batch is split over ranks and accumulation steps, and after
resuming: its numbers come from a generator seeded with the run's seed, the step and the sample's index in the data.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def draw_noise(
    batch: Mapping[str, Any], per_sample: Sequence[int], d: int, seed: int, step: int, purpose: bytes = b""
) -> torch.Tensor:
    """Uniform numbers in [0, 1) for ``d`` draws at each supervised token.

    Args:
        batch: Batch from the collator, ``B`` samples; their indices are its ``sample_index``, long ``[B]``. Without it,
            a sample is identified by its tokens (``input_ids``, ``attention_mask``, ``[B, T]``) and by the number of
            equal samples before it in the batch.
        per_sample: Number of supervised tokens of each sample, ``B`` numbers with sum ``L``.
        d: Number of draws per token.
        seed: Random seed of the run.
        step: Number of the optimizer step.
        purpose: Name of at most 16 bytes; draws for different purposes are independent.

    Returns:
        ``[L, d]`` float64 on the CPU, in the order of the samples.
    """
    generator = torch.Generator()
    noise = []
    for sample, count in zip(_samples(batch), per_sample, strict=True):
        generator.manual_seed(_key(sample, seed, step, purpose))
        noise.append(torch.rand(count, d, generator=generator, dtype=torch.float64))
    return torch.cat(noise)


def _samples(batch: Mapping[str, Any]) -> list[bytes]:
    """Identity of each sample of a batch, in order."""
    index = batch.get("sample_index")
    if index is not None:
        return [b"number" + number.to_bytes(8, "little", signed=True) for number in index.tolist()]
    # Equal samples in one batch are distinguished by the number of equal ones before them.
    before: Counter[bytes] = Counter()
    samples = []
    for row, real in zip(batch["input_ids"].cpu(), batch["attention_mask"].cpu().bool(), strict=True):
        text = row[real].numpy().tobytes()
        samples.append(b"text" + before[text].to_bytes(8, "little") + text)
        before[text] += 1
    return samples


def step_noise(seed: int, step: int, purpose: bytes) -> float:
    """One uniform number in [0, 1) that all ranks share in an optimizer step."""
    return _key(b"", seed, step, purpose) / 2**63


def _key(content: bytes, seed: int, step: int, purpose: bytes) -> int:
    """63 bits that depend on all of these."""
    salt = seed.to_bytes(8, "little") + step.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=salt, person=purpose).digest(), "little") >> 1
