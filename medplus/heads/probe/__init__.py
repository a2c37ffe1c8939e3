"""Linear probes on stored embeddings: all heads of a grid trained as one.

As for kNN, the protocol imports torch when there is something to train.
"""

from medplus.heads.probe.fit import probe

__all__ = ["probe"]
