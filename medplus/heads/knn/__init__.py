"""k-nearest neighbours on stored embeddings: search, vote, score."""

from medplus.heads.knn.protocol import knn
from medplus.heads.knn.search import Neighbours, search
from medplus.heads.knn.vote import vote_shares

__all__ = ["Neighbours", "knn", "search", "vote_shares"]
