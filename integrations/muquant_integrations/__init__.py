"""muquant where people already work: thin doors between it and other libraries, a file each.

torchao.py      `quantize_(model, MuLawConfig(bits=3))`, and the same configuration for torchao's own
lightning.py    `MuLawQAT`, a callback that trains for few bits
pretrained.py   `MuLawModel`: a folder with config.json, as Hugging Face's libraries keep models
olive.py        `MuLawCompression`, a pass of Olive
packages.py     what is said where a package is missing

None of those libraries is imported, or needed, before its door is used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
