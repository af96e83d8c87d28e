"""The distillation stage: flags, teacher, trainer, entry point."""
