"""Random numbers for the draws that belong to the samples, not to the process that happens to hold them.

A sample gets the same draws in a step however the batch is split over ranks and accumulation steps, and after
resuming: its numbers come from a generator seeded by the run's seed, the step and the sample's own tokens.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(
    input_ids: Tensor,
    attention_mask: Tensor,
    per_sample: Sequence[int],
    d: int,
    seed: int,
    step: int,
    purpose: bytes = b"",
) -> Tensor:
    """Uniform numbers in [0, 1) for ``d`` draws at each supervised token.

    Args:
        input_ids: ``[B, T]``.
        attention_mask: bool ``[B, T]``; padding does not enter the seed.
        per_sample: supervised tokens of each sample, ``B`` numbers with sum ``L``.
        d: draws a token.
        seed: of the run.
        step: number of the optimizer step.
        purpose: at most 16 bytes; draws for different purposes are independent.

    Returns:
        ``[L, d]`` float64 on the CPU, in the order of the samples.
    """
    ids, mask = input_ids.cpu(), attention_mask.cpu().bool()
    generator = torch.Generator()
    noise = []
    for row, real, count in zip(ids, mask, per_sample, strict=True):
        generator.manual_seed(_key(row[real].numpy().tobytes(), seed, step, purpose))
        noise.append(torch.rand(count, d, generator=generator, dtype=torch.float64))
    return torch.cat(noise)


def step_noise(seed: int, step: int, purpose: bytes) -> float:
    """One uniform number in [0, 1) that all ranks share in an optimizer step."""
    return _key(b"", seed, step, purpose) / 2**63


def _key(content: bytes, seed: int, step: int, purpose: bytes) -> int:
    """63 bits that depend on all of these."""
    salt = seed.to_bytes(8, "little") + step.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=salt, person=purpose).digest(), "little") >> 1
