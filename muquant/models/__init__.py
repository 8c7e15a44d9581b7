"""Networks that are trained and compressed here, behind one registry."""

from muquant.models.architecture import Architecture, Classifier, Normalize
from muquant.models.registry import MAX_PARAMETERS, MODELS, ModelEntry, build, build_model, model_names

__all__ = [
    "MAX_PARAMETERS",
    "MODELS",
    "Architecture",
    "Classifier",
    "ModelEntry",
    "Normalize",
    "build",
    "build_model",
    "model_names",
]
