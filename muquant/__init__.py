"""muquant: 3-bit mu-law compression of neural networks, and the truth about how robust the result is."""

from importlib.metadata import version

import lazy_loader

from muquant.base.extras import name_missing_extras

name_missing_extras()

# What `__init__.pyi` lists is imported when it is used first: who only runs files needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("muquant")
