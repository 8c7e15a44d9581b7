"""Networks that are trained and compressed here, behind one registry."""

from muquant.models.architecture import MAX_PARAMETERS, Architecture, Classifier, Normalize
from muquant.models.registry import MODELS, ModelEntry, build_model, model_names

__all__ = [
    "MAX_PARAMETERS",
    "MODELS",
    "Architecture",
    "Classifier",
    "ModelEntry",
    "Normalize",
    "build_model",
    "model_names",
]
