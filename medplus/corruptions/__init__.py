"""Images made worse, as MedMNIST-C does it: pure functions of uint8 batches.

`Corruption` names one at one severity; `medplus.corruptions.apply.corrupt` applies it, the same to
an image at the same place on every machine and in every batch.
"""

from medplus.corruptions.named import Corruption, chosen, of_dataset

__all__ = ["Corruption", "chosen", "of_dataset"]
