"""medplus in scikit-learn: its heads as classifiers, its backbones as a transformer.

>>> from sklearn.datasets import load_digits
>>> from sklearn.model_selection import cross_val_score
>>> from sklearn.pipeline import make_pipeline
>>> from medplus.sklearn import EmbeddingTransformer, KNNProbe
>>> images, digits = load_digits(return_X_y=True)
>>> images = (images.reshape(-1, 8, 8) * 255 / 16).astype("uint8")[:500]
>>> model = make_pipeline(EmbeddingTransformer("pixels", store=None), KNNProbe(k=3))
>>> bool(cross_val_score(model, images, digits[:500]).mean() > 0.9)
True
"""

from medplus.sklearn.embedding import EmbeddingTransformer
from medplus.sklearn.knn import KNNProbe
from medplus.sklearn.linear import LinearProbe

__all__ = ["EmbeddingTransformer", "KNNProbe", "LinearProbe"]
