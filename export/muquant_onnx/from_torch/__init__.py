"""From PyTorch: a compressed model, or a program that torch.export saved, to an ONNX file."""
