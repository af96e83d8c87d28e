"""Random numbers for the draws, tied to the samples and not to the process that handles them.

A sample gets the same draws in a step however the batch is split over ranks and accumulation steps, and after
resuming: its numbers come from a generator seeded with the run's seed, the step and the sample's index in the data.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch


class SampleNoise:
    """Uniform numbers in [0, 1) for the samples of a micro-batch in one step.

    Args:
        batch: Batch from the collator, ``B`` samples; their indices are its ``sample_index``, long ``[B]``. Without it,
            a sample is identified by its tokens (``input_ids``, ``attention_mask``, ``[B, T]``) and by the number of
            equal samples before it in the batch.
        seed: Random seed of the run.
        step: Number of the optimizer step.
    """

    def __init__(self, batch: Mapping[str, Any], seed: int, step: int) -> None:
        self.batch, self.seed, self.step = batch, seed, step

    @cached_property
    def samples(self) -> list[bytes]:
        """Identity of each sample, in order. Read once: from a GPU the host has to wait for it."""
        index = self.batch.get("sample_index")
        if index is not None:
            return [b"number" + number.to_bytes(8, "little", signed=True) for number in index.tolist()]
        # Equal samples in one batch are distinguished by the number of equal ones before them.
        before: Counter[bytes] = Counter()
        samples = []
        for row, real in zip(self.batch["input_ids"].cpu(), self.batch["attention_mask"].cpu().bool(), strict=True):
            text = row[real].numpy().tobytes()
            samples.append(b"text" + before[text].to_bytes(8, "little") + text)
            before[text] += 1
        return samples

    def draws(self, per_sample: Sequence[int], d: int, purpose: bytes = b"") -> torch.Tensor:
        """Numbers for ``d`` draws at each supervised token.

        Args:
            per_sample: Number of supervised tokens of each sample, ``B`` numbers with sum ``L``.
            d: Number of draws per token.
            purpose: Name of at most 16 bytes; draws for different purposes are independent.

        Returns:
            ``[L, d]`` float64 on the CPU, in the order of the samples.
        """
        generator = torch.Generator()
        noise = []
        for sample, count in zip(self.samples, per_sample, strict=True):
            generator.manual_seed(_key(sample, self.seed, self.step, purpose))
            noise.append(torch.rand(count, d, generator=generator, dtype=torch.float64))
        return torch.cat(noise)

    def one_each(self, purpose: bytes) -> torch.Tensor:
        """One number for each sample, ``[B]`` float64 on the CPU."""
        return self.draws([1] * len(self.samples), 1, purpose).flatten()


def step_noise(seed: int, step: int, purpose: bytes) -> float:
    """One uniform number in [0, 1) that all ranks share in an optimizer step."""
    return _key(b"", seed, step, purpose) / 2**63


def _key(content: bytes, seed: int, step: int, purpose: bytes) -> int:
    """63 bits that depend on all of these."""
    salt = seed.to_bytes(8, "little") + step.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=salt, person=purpose).digest(), "little") >> 1
