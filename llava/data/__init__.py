"""From LLaVA's conversation files to batches: token ids, label and instruction masks, pixel values."""
