"""Console output of a training: readable lines, progress bars only on a terminal, no irrelevant messages."""

import logging
import os
import sys
import warnings

NOISE = {
    "accelerate.accelerator": "Gradient accumulation steps mismatch",
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens",
    "transformers.configuration_utils": "vocabulary (between 0 and 31999), got 4940",
    "DeepSpeed": "Setting accelerator to CPU",
}
"""Logger -> part of a message that is of no use: accelerate's own count beside DeepSpeed's, which is the right one; the
model's configuration following its tokenizer, as it should; token ids that transformers itself gives the text half of a
SigLIP tower, which is not loaded; a machine without a GPU, which its user knows."""


class Unhelpful(logging.Filter):
    """Drops records that contain a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        return self.text not in record.getMessage()


class LineFormat(logging.Formatter):
    """``12:34:56 message``, with the level in front of warnings and errors.

    Args:
        form: Format of the message.
        times: Whether lines begin with the time.
    """

    def __init__(self, form: str, times: bool = True) -> None:
        super().__init__(form)
        self.times = times

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        time = f"{self.formatTime(record, '%H:%M:%S')} " if self.times else ""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{time}{level}{super().format(record)}"


def setup_console(main_process: bool = True, times: bool = True) -> None:
    """Readable logs on the main process, warnings only on the others; call it before models are loaded.

    Args:
        main_process: Whether this is the process that speaks for all.
        times: Whether lines begin with the time.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormat("%(message)s", times))
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(logging.INFO if main_process else logging.WARNING)
    for noisy in ("httpx", "datasets", "fsspec", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    quiet_libraries(bars=main_process and on_a_terminal())


def quiet_libraries(bars: bool) -> None:
    """Silence irrelevant messages of libraries and, without ``bars``, their progress bars."""
    import transformers.utils.logging as transformers_logging

    # Under torch 2.13, DeepSpeed calls these hundreds of times per step.
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    for name, text in NOISE.items():
        logging.getLogger(name).addFilter(Unhelpful(text))
    if not bars:
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # read when datasets is imported
        if "datasets" in sys.modules:
            sys.modules["datasets"].disable_progress_bars()
        transformers_logging.disable_progress_bar()


def on_a_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()
