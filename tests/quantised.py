"""Small checkpoints stored quantised, against what the libraries that made their layouts compute from them; prints TAP.

Each file of tests/data/quantised holds a configuration, how to fill words, scales, zeros and orders from a seeded generator,
and the expected log probabilities and greedy tokens; tests/make_quantised.py made them.  Environment as in tests/reference.py.
"""
import glob
import json
import math
import os
import random
import struct
import sys
import tempfile

import checkpoints

SIZES = dict(F32=4, F16=2, BF16=2, I32=4, I64=8, I8=1, F8_E4M3=1)


def floats(dtype, numbers):
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in numbers)
    return struct.pack(f"<{len(numbers)}{'e' if dtype == 'F16' else 'f'}", *numbers)


def payload(tensor):
    """The bytes of one tensor: dict(name, dtype, shape, ...) where one of these says with what it is filled:

    values   [...]              as they stand here
    groups   n                  which group each column is of, equally often; `shuffled`: in no order
    scale    s                  4 to 8 times a power of two, about s: few bits, so that no product is rounded
    mean, deviation             evenly spread
    nothing                     random bits; of E4M3 no NaN
    """
    name, dtype, count = tensor["name"], tensor["dtype"], 1
    chance = random.Random(name)
    for size in tensor["shape"]:
        count *= size
    if "values" in tensor:
        return struct.pack(f"<{count}{dict(I32='i', I64='q', F32='f')[dtype]}", *tensor["values"])
    if "groups" in tensor:
        order = [i * tensor["groups"] // count for i in range(count)]
        if tensor["shuffled"]:
            chance.shuffle(order)
        return struct.pack(f"<{count}i", *order)
    if "scale" in tensor:
        step = 2.0 ** round(math.log2(tensor["scale"] / 6))
        return floats(dtype, [step * chance.randrange(4, 9) for _ in range(count)])
    if "mean" in tensor:
        return floats(dtype, checkpoints.values(name, count, tensor["mean"], tensor["deviation"]))
    bits = chance.randbytes(count * SIZES[dtype])
    return bytes(b ^ 1 if b & 127 == 127 else b for b in bits) if dtype == "F8_E4M3" else bits


def write(folder, spec):
    checkpoints.write_texts(folder, spec["config"])
    header, at, data = {}, 0, []
    for tensor in spec["tensors"]:
        data.append(payload(tensor))
        header[tensor["name"]] = dict(dtype=tensor["dtype"], shape=tensor["shape"], data_offsets=[at, at + len(data[-1])])
        at += len(data[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


MODES = (
    ("reference", ["--engine.dtype", "fp32"], checkpoints.TOLERANCE),
    ("dense", ["--engine.linear", "dense", "--engine.kv_dtype", "fp32"], checkpoints.TOLERANCE),
    # x is rounded to 8 bits on the way, which no library's float32 does.
    ("packed", ["--engine.linear", "auto", "--engine.kv_dtype", "fp32"], 0.3),
)


def main():
    files = sorted(glob.glob(os.path.join(os.environ["MI_SRCDIR"], "tests", "data", "quantised", "*.json")))
    print(f"1..{len(files) * len(MODES)}")
    number = 0
    for file in files:
        with open(file, encoding="utf-8") as f:
            spec = json.load(f)
        with tempfile.TemporaryDirectory() as folder:
            write(folder, spec)
            for mode, flags, tolerance in MODES:
                number += 1
                wrong, worst = checkpoints.compare(folder, spec["prompts"], flags, tolerance)
                name = os.path.basename(file)[:-5]
                print("not ok" if wrong else "ok", number, "-", f"{name}, {mode}: as {spec['library']}, to",
                      f"{worst:.0e}", flush=True)
                for line in wrong[:6]:
                    print("#", line)


if __name__ == "__main__":
    sys.exit(main())
