"""The LLaVA pipeline: data, models, training and evaluation of vision-language models."""

import logging

# bitsandbytes warns, when it is imported, of an optional kernel that nothing here needs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
