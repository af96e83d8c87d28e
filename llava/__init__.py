"""The LLaVA pipeline: data, models, training and evaluation of vision-language models."""
