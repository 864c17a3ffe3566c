#!/usr/bin/env python3
"""Makes blocks.h: random blocks of every stored format and what they mean.

The values come from the dequantisation of the PyPI package gguf (0.19.0 with
numpy 2), another implementation than ours.  Usage: blocks.py > blocks.h"""
import sys
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES, quants

KINDS = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
# Where a block holds f16 numbers: random bits there would be infinities.
HALVES = {"F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
rng = np.random.default_rng(3)


def rows(numbers, form, per_line):
    for i in range(0, len(numbers), per_line):
        print("    " + " ".join(form(x) + "," for x in numbers[i:i + per_line]))


print("/* blocks.h - made by blocks.py: random blocks and their values as f32 bits. */")
for kind in KINDS:
    values, size = GGML_QUANT_SIZES[T[kind]]
    n = 8 if values == 1 else 2
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in HALVES.get(kind, []):
        raw[:, at:at + 2] = rng.normal(0, 0.1, n).astype(np.float16).view(np.uint8).reshape(n, 2)
    if kind == "F16":
        raw[0], raw[1] = [1, 0x80], [0xff, 3]  # subnormals
    if kind in ("F32", "BF16"):
        raw[:, -1] = raw[:, -1] & 0xbf  # finite
    flat = raw.reshape(-1)
    out = (flat.view(np.float32) if kind == "F32" else
           quants.dequantize(flat, T[kind])).astype(np.float32).reshape(-1)
    assert np.isfinite(out).all(), kind
    print(f"static const unsigned char {kind.lower()}_raw[] = {{")
    rows(flat, lambda x: str(int(x)), 28)
    print(f"}};\nstatic const uint32_t {kind.lower()}_bits[] = {{")
    rows(out.view(np.uint32), lambda x: f"0x{int(x):08x}", 9)
    print("};")
print("#define BLOCK_KINDS(X) \\\n    " + " ".join(f"X({k.lower()}, {T[k].value}, {GGML_QUANT_SIZES[T[k]][0]})" +
      (" \\\n   " if i % 5 == 4 and i + 1 < len(KINDS) else "") for i, k in enumerate(KINDS)))
