"""ONNX files of any size: parsed, checked and written without their large tensors in memory."""
