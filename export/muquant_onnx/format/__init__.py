"""The ONNX form of a weight: the decoding function, the packed weight, and a reader in numpy."""
