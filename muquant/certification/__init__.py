"""What no attack can turn: bounds of a network's logits over whole balls of images.

certificate = certify(module, images, labels, "0.3")
certificate.accuracy

operations.py   affine operations, ReLU, pooling, sums: intervals forward, linear bounds backward
trace.py        a module is run on ranges; PyTorch's functions become operations, one translator each
bounds.py       bounds of margins, one line each
certify.py      images, a ball, rounding; what is proven
"""

from muquant.certification.bounds import BOUNDS
from muquant.certification.certify import Certificate, certify

__all__ = ["BOUNDS", "Certificate", "certify"]
