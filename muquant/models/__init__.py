"""Networks that are trained and compressed here, behind one registry, and how any module is called.

registry.py      the one table of models, and how one of it is built
architecture.py  `Architecture`: a model without its weights, as a value; the base of all models
cnn4.py          four layers, for MNIST
wide_resnet.py   wide residual networks
calls.py         inputs in every form, outputs, evaluation mode; of any module
arguments.py     what a model can be called with, by its signature
caches.py        what decoders of transformers remember, as inputs
wrappers.py      modules around modules, such as torch.compile's, and the names that they leave
leaves.py        pictures of nothing, for networks that are to be tried on something
logits.py        the logits in what any classifier returns
fingerprint.py   which module it is, structure and values
evaluation.py    accuracy and logits on a data set
"""

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
