#!/usr/bin/env python3
"""Makes golden.json: what llama.cpp makes of the small models of models.rs when it quantizes them.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0
    cargo run -p engine --example synthetic FOLDER
    python make_golden.py FOLDER/quantize

Per model and quantization, in the order of the source file: `types`, the type of each tensor, and `rms`, the root of the
mean square of what quantizing changed in each, in millionths, 0 where the tensor is as it was.
"""

import ctypes
import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).parent
FILE_TYPES = {"F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}


def tensors(path):
    """Name to type and values."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).ravel()
        found[tensor.name] = (tensor.tensor_type.name, values)
    return found


def quantized(path, file_type):
    with tempfile.NamedTemporaryFile(suffix=".gguf") as made:
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread = file_type, 1
        if llama_cpp.llama_model_quantize(str(path).encode(), made.name.encode(), ctypes.byref(params)) != 0:
            sys.exit(f"llama.cpp does not quantize {path}")
        return tensors(made.name)


def main(folder):
    golden = []
    for path in sorted(pathlib.Path(folder).glob("*.gguf")):
        source = tensors(path)
        for name, file_type in FILE_TYPES.items():
            made = quantized(path, file_type)
            rms = [np.sqrt(np.mean((made[tensor][1] - values) ** 2)) for tensor, (_, values) in source.items()]
            types = [made[tensor][0] for tensor in source]
            row = {"model": path.stem, "quantization": name, "types": types, "rms": [round(value * 1e6) for value in rms]}
            golden.append(json.dumps(row, separators=(",", ":")))
    (HERE / "golden.json").write_text("[\n" + ",\n".join(golden) + "\n]\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
