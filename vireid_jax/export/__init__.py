"""A trained network in files for other programs: ONNX, StableHLO, safetensors."""
