"""PyTorch to ONNX: export, cleaning, checks for TensorRT, the exported networks."""
