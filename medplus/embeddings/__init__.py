"""The embedding store: what identifies embeddings, how they lie on disk, how they are filled."""
