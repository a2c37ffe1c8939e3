"""The heads on stored embeddings: k-nearest neighbours and linear probes."""
