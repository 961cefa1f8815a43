"""Your own ONNX networks: their tasks, inputs, branches and tokens, and the starter project made from them."""
