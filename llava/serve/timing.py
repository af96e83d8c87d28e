"""The speed of an answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The speed of one answer, measured from the question, including the processing of image and prompt.

    Attributes:
        first: Seconds to the first token.
        total: Seconds to the last token.
        tokens: Number of generated tokens, including the end-of-turn token.
    """

    first: float
    total: float
    tokens: int

    @property
    def per_second(self) -> float:
        """Tokens per second over the whole answer, including the time to the first token."""
        return self.tokens / max(self.total, 1e-9)

    def __str__(self) -> str:
        tokens = "1 token" if self.tokens == 1 else f"{self.tokens} tokens"
        return (
            f"{_figure(self.first)} s to the first token, {tokens} in {_figure(self.total)} s, "
            f"{_figure(self.per_second)} tokens/s"
        )


def _figure(value: float) -> str:
    """Two decimals for small numbers, one for numbers from 10, none from 100."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
