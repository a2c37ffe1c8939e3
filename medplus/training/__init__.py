"""Fine-tuning: whole networks trained end to end, on one device or several."""

from medplus.training.finetuning import finetune, finetune_all

__all__ = ["finetune", "finetune_all"]
