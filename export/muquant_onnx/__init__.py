"""ONNX form of muquant."""
