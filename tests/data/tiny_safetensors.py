#!/usr/bin/env python3
"""Makes tiny_safetensors.h: a file as the PyPI package safetensors (0.8.0) writes it.
Usage: tiny_safetensors.py > tiny_safetensors.h"""
import numpy as np
from safetensors import numpy as st

data = st.save({"a.weight": np.array([[1, -2.5, 3e-5], [65504, 0, -0.1]], np.float16),
                "b": np.array([0.1, 1e-40], np.float32),
                "n": np.array(7, np.int64)}, metadata={"format": "pt"})
print("/* tiny_safetensors.h - made by tiny_safetensors.py. */")
print("static const unsigned char tiny_safetensors[] = {")
for i in range(0, len(data), 24):
    print("    " + " ".join(f"{b}," for b in data[i:i + 24]))
print("};")
