"""Console output of a training: readable lines, progress bars only on a terminal, no irrelevant messages."""

import logging
import sys
import warnings

NOISE = {
    "accelerate.accelerator": "Gradient accumulation steps mismatch",
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens",
    "transformers.configuration_utils": "vocabulary (between 0 and 31999), got 4940",
}
"""Map from logger to part of an irrelevant message: accelerate's own count of accumulation steps, where DeepSpeed's is
the correct one; the model's configuration following its tokenizer, as it should; default token ids of a SigLIP tower's
text half, which is not loaded."""


class Unhelpful(logging.Filter):
    """Drops records that contain a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        return self.text not in record.getMessage()


class LineFormat(logging.Formatter):
    """``12:34:56 message``, with the level before warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{super().format(record)}"


def setup_console(main_process: bool = True) -> None:
    """Set up readable logs on the main process and only warnings on the others; call it before models are loaded.

    Args:
        main_process: Whether this is the main process.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormat("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(logging.INFO if main_process else logging.WARNING)
    for noisy in ("httpx", "datasets", "fsspec", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    quiet_libraries(bars=main_process and on_a_terminal())


def quiet_libraries(bars: bool) -> None:
    """Silence irrelevant messages of libraries and, without ``bars``, their progress bars."""
    import datasets
    import transformers.utils.logging as transformers_logging

    # Under torch 2.13, DeepSpeed calls these hundreds of times per step.
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    for name, text in NOISE.items():
        logging.getLogger(name).addFilter(Unhelpful(text))
    if not bars:
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()


def on_a_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()
