"""ONNX form of muquant: files with 3-bit weights that stock onnxruntime runs."""

import lazy_loader

from muquant.base.extras import name_missing_extras

name_missing_extras()

# What `__init__.pyi` lists is imported when it is used first: who only runs files needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
