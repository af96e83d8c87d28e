"""Sizes of models and batches for the benchmarks."""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Decoder:
    """A Qwen2-shaped language model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool = False


@dataclass(frozen=True)
class Geometry:
    """Models and batch of a benchmark.

    Attributes:
        teacher, student: Shapes of the language models.
        prompt: Number of tokens before the response, including visual tokens.
        visual, instruction: Numbers of visual tokens and of instruction tokens (the last ones) in the prompt.
        responses: Number of supervised tokens of each sample; one entry per sample of the batch.
        d: Number of draws per response token.
        rows: Number of candidate rows per response token after merging equal draws.
        dtype: Dtype of parameters and activations.
        rounds: Default number of timed rounds.
    """

    teacher: Decoder
    student: Decoder
    prompt: int
    visual: int
    instruction: int
    responses: tuple[int, ...]
    d: int = 4
    rows: float = 1.0
    dtype: torch.dtype = torch.float32
    rounds: int = 5

    @property
    def tokens(self) -> int:
        """Number of tokens of a batch on the main path."""
        return sum(self.prompt + response for response in self.responses)

    def with_changes(self, **changes: object) -> "Geometry":
        """A copy with the given fields changed; None leaves a field unchanged."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


PRESETS = {
    # About the paper's proportions (prompt to response, models 14 : 1), at a size that a laptop runs in minutes.
    "laptop": Geometry(
        teacher=Decoder(512, 12, 8, 2, 1536, 8192),
        student=Decoder(160, 8, 5, 1, 480, 8192, tied=True),
        prompt=780,
        visual=729,
        instruction=20,
        responses=(100, 100),
    ),
    # The models and data of `playground/mini`: short prompts, several short answers.
    "miniature": Geometry(
        teacher=Decoder(128, 4, 4, 4, 384, 1024, tied=True),
        student=Decoder(96, 3, 4, 2, 288, 960, tied=True),
        prompt=61,
        visual=16,
        instruction=12,
        responses=(10, 12, 20, 24, 60, 70, 10, 10),
    ),
    # Qwen2-7B to Qwen2-0.5B, SigLIP so400m at 384 px; for one large GPU.
    "paper": Geometry(
        teacher=Decoder(3584, 28, 28, 4, 18944, 152064),
        student=Decoder(896, 24, 14, 2, 4864, 151936, tied=True),
        prompt=780,
        visual=729,
        instruction=20,
        responses=(100,) * 8,
        dtype=torch.bfloat16,
        rounds=10,
    ),
}
