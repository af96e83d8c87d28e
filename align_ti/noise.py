"""Random numbers for the draws that belong to the samples, not to the process that happens to hold them.

A sample gets the same draws in a step however the batch is split over ranks and accumulation steps, and after
resuming: its numbers come from a generator seeded by the run's seed, the step and the sample's own tokens.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(
    input_ids: Tensor, attention_mask: Tensor, per_sample: Sequence[int], d: int, seed: int, step: int
) -> Tensor:
    """Uniform numbers in [0, 1) for ``d`` draws at each supervised token.

    Args:
        input_ids: ``[B, T]``.
        attention_mask: bool ``[B, T]``; padding does not enter the seed.
        per_sample: supervised tokens of each sample, ``B`` numbers with sum ``L``.
        d: draws a token.
        seed: of the run.
        step: number of the optimizer step.

    Returns:
        ``[L, d]`` float64 on the CPU, in the order of the samples.
    """
    ids, mask = input_ids.cpu(), attention_mask.cpu().bool()
    generator = torch.Generator()
    noise = []
    for row, real, count in zip(ids, mask, per_sample, strict=True):
        key = hashlib.blake2b(
            row[real].numpy().tobytes(),
            digest_size=8,
            salt=seed.to_bytes(8, "little") + step.to_bytes(8, "little"),
        )
        generator.manual_seed(int.from_bytes(key.digest(), "little") >> 1)
        noise.append(torch.rand(count, d, generator=generator, dtype=torch.float64))
    return torch.cat(noise)
