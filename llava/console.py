"""What a training prints: readable lines, bars on a terminal only, no messages that users can do nothing about."""

import logging
import sys
import warnings

NOISE = {
    "accelerate.accelerator": "Gradient accumulation steps mismatch",
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens",
    "transformers.configuration_utils": "vocabulary (between 0 and 31999), got 4940",
}
"""Logger -> part of a message that is of no use: accelerate's own count beside DeepSpeed's, which is the right one; the
model's configuration following its tokenizer, as it should; token ids that transformers itself gives the text half of a
SigLIP tower, which is not loaded."""


class Unhelpful(logging.Filter):
    """Drops records that hold a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        return self.text not in record.getMessage()


class LineFormat(logging.Formatter):
    """``12:34:56 message``, with the level in front of warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{super().format(record)}"


def setup_console(main_process: bool = True) -> None:
    """Readable logs on the main process, warnings only on the others; call it before models are loaded.

    Args:
        main_process: Whether this is the process that speaks for all.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormat("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(logging.INFO if main_process else logging.WARNING)
    for noisy in ("httpx", "datasets", "fsspec", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    quiet_libraries(bars=main_process and on_a_terminal())


def quiet_libraries(bars: bool) -> None:
    """Silence messages that say nothing to a user, and, without ``bars``, the libraries' progress bars."""
    import datasets
    import transformers.utils.logging as transformers_logging

    # DeepSpeed calls these under torch 2.13, hundreds of times a step.
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    for name, text in NOISE.items():
        logging.getLogger(name).addFilter(Unhelpful(text))
    if not bars:
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()


def on_a_terminal() -> bool:
    """Whether somebody watches: standard error is a terminal."""
    return sys.stderr.isatty()
