"""k-nearest neighbours on stored embeddings: search, vote, score.

To find that all is done takes no torch, which takes seconds to import; hence only the protocol is
exported here, and it imports the search when there is something to search.
"""

from medplus.heads.knn.classify import knn

__all__ = ["knn"]
