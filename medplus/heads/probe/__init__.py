"""Linear probes on stored embeddings: all heads of a grid trained as one."""

from medplus.heads.probe.protocol import probe
from medplus.heads.probe.stack import HeadGrid, TrainedHeads, train_heads

__all__ = ["HeadGrid", "TrainedHeads", "probe", "train_heads"]
