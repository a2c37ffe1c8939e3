"""How often each class occurs: the known imbalance of the 12 collections, rounded.

Rounded from the class counts published with the source collections; near enough to be as
imbalanced as the originals, not a reference for them. Test splits that were drawn otherwise than
the training split (OCT, pneumonia, pathology) have a row of their own.
"""

from __future__ import annotations

from medplus.vocabulary import Split

_TRAIN: dict[str, tuple[float, ...]] = {
    "bloodmnist": (0.071, 0.182, 0.091, 0.169, 0.071, 0.083, 0.195, 0.137),
    "breastmnist": (0.269, 0.731),
    "dermamnist": (0.033, 0.051, 0.110, 0.011, 0.111, 0.670, 0.014),
    "octmnist": (0.343, 0.105, 0.080, 0.472),
    "organamnist": (0.057, 0.040, 0.039, 0.043, 0.115, 0.110, 0.178, 0.113, 0.114, 0.088, 0.103),
    "organcmnist": (0.088, 0.048, 0.046, 0.046, 0.084, 0.090, 0.230, 0.077, 0.079, 0.090, 0.121),
    "organsmnist": (0.082, 0.046, 0.044, 0.052, 0.081, 0.080, 0.249, 0.053, 0.058, 0.144, 0.111),
    "pathmnist": (0.104, 0.106, 0.115, 0.116, 0.089, 0.135, 0.088, 0.104, 0.143),
    "pneumoniamnist": (0.258, 0.742),
    "retinamnist": (0.450, 0.119, 0.191, 0.180, 0.061),
    "tissuemnist": (0.321, 0.047, 0.035, 0.093, 0.071, 0.047, 0.237, 0.149),
}
_TEST: dict[str, tuple[float, ...]] = {
    "octmnist": (0.25, 0.25, 0.25, 0.25),
    "pathmnist": (0.186, 0.118, 0.047, 0.088, 0.144, 0.082, 0.103, 0.059, 0.172),
    "pneumoniamnist": (0.375, 0.625),
}
CHEST: tuple[float, ...] = (
    0.102,  # atelectasis
    0.025,  # cardiomegaly
    0.118,  # effusion
    0.177,  # infiltration
    0.051,  # mass
    0.056,  # nodule
    0.012,  # pneumonia
    0.047,  # pneumothorax
    0.042,  # consolidation
    0.022,  # edema
    0.023,  # emphysema
    0.015,  # fibrosis
    0.029,  # pleural
    0.010,  # hernia: 0.002 in truth, raised so that a small sample has some
)
"""Prevalence of ChestMNIST's labels; 54% of its images show none of them."""
CHEST_SICK = 0.47
"""Share of ChestMNIST's images with any finding."""


def class_shares(flag: str, split: Split) -> tuple[float, ...]:
    """Return each class's share of a split, for the collections with one label per image."""
    return _TEST.get(flag, _TRAIN[flag]) if split == "test" else _TRAIN[flag]
