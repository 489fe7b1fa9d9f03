"""The graph of an ONNX file, step by step, and the network that it describes."""
