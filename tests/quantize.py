"""What tests/cmd_quantize.sh needs of Python: reads the layouts that `quantize` writes, element by element, by their definitions.

usage: quantize.py outliers MODEL             some gains, rows of v and up 8 times as large, in place
       quantize.py nearest MODEL RESULT GROUP  codes, scales and zeros of RESULT are those of a slow rounding of MODEL
       quantize.py e4m3 MODEL RESULT           the same of E4M3, of which each row has a scale
       quantize.py same A B                    two results stand for the same matrices
       quantize.py folded MODEL RESULT         what of MODEL was divided by scales is in RESULT, as values of bf16
       quantize.py interrupt FILE COMMAND...   the status of a command that gets SIGINT once that file is there
       quantize.py plot FILE PANELS POINTS     an SVG has so many panels and so many points, all of them in a panel
"""
import json
import os
import signal
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree

FORMS = dict(F32="f", F16="e", I32="I", I64="q", F8_E4M3="B")


def tensors(folder):
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data, found = f.read(), {}
    for name, t in header.items():
        if name != "__metadata__":
            n = 1
            for size in t["shape"]:
                n *= size
            raw = data[t["data_offsets"][0]:t["data_offsets"][1]]
            if t["dtype"] == "BF16":
                found[name] = t["shape"], [struct.unpack("<f", b"\0\0" + raw[i:i + 2])[0] for i in range(0, 2 * n, 2)]
            else:
                found[name] = t["shape"], list(struct.unpack(f"<{n}{FORMS[t['dtype']]}", raw))
    return found


def config(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        return json.load(f)["quantization_config"]


def matrix(folder, all_of, base):
    """codes [out][in], scales and zeros [out][groups], the group of each column."""
    c = config(folder)
    if c["quant_method"] == "gptq":
        bits, shift = c["bits"], 1 if c["checkpoint_format"] == "gptq" else 0
        (down, out), words = all_of[base + ".qweight"]
        per, mask = 32 // bits, 2 ** bits - 1
        group = all_of[base + ".g_idx"][1]
        codes = [[words[i // per * out + o] >> i % per * bits & mask for i in range(down * per)] for o in range(out)]
        (groups, _), scales = all_of[base + ".scales"]
        (_, across), zeros = all_of[base + ".qzeros"]
        return (codes, [[scales[g * out + o] for g in range(groups)] for o in range(out)],
                [[(zeros[g * across + o // per] >> o % per * bits & mask) + shift for g in range(groups)] for o in range(out)], group)
    bits = c["config_groups"]["group_0"]["weights"]["num_bits"]
    out, columns = all_of[base + ".weight_shape"][1]
    per, mask = 32 // bits, 2 ** bits - 1
    (_, row), words = all_of[base + ".weight_packed"]
    (_, groups), scales = all_of[base + ".weight_scale"]
    codes = [[words[o * row + i // per] >> i % per * bits & mask for i in range(columns)] for o in range(out)]
    zeros = [[2 ** (bits - 1)] * groups for _ in range(out)]
    if base + ".weight_zero_point" in all_of:
        packed = all_of[base + ".weight_zero_point"][1]
        zeros = [[packed[o // per * groups + g] >> o % per * bits & mask for g in range(groups)] for o in range(out)]
    return codes, [scales[o * groups:(o + 1) * groups] for o in range(out)], zeros, [i * groups // columns for i in range(columns)]


def values(folder, all_of, base):
    codes, scales, zeros, group = matrix(folder, all_of, base)
    return [[scales[o][group[i]] * (code - zeros[o][group[i]]) for i, code in enumerate(row)] for o, row in enumerate(codes)]


def bases(all_of):
    return sorted(name[:-7] for name, (shape, _) in all_of.items() if ".layers." in name and len(shape) == 2 and name.endswith(".weight"))


def half(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def outliers(folder):
    path = os.path.join(folder, "model.safetensors")
    with open(path, "rb") as f:
        data = bytearray(f.read())
    begin = 8 + struct.unpack_from("<Q", data)[0]
    for name, t in json.loads(data[8:begin]).items():
        at = begin + t["data_offsets"][0]
        if ".layers." not in name or not any(part in name for part in ("layernorm.weight", "v_proj.weight", "up_proj.weight")):
            continue
        columns = t["shape"][1] if len(t["shape"]) == 2 else 1
        for row in range(3, t["shape"][0], 11):
            for i in range(row * columns, (row + 1) * columns):
                struct.pack_into("<f", data, at + 4 * i, 8 * struct.unpack_from("<f", data, at + 4 * i)[0])
    with open(path, "wb") as f:
        f.write(data)


def nearest(model, result, size):
    size, c = int(size), config(result)
    bits = c["bits"] if "bits" in c else c["config_groups"]["group_0"]["weights"]["num_bits"]
    symmetric = c["sym"] if "sym" in c else c["config_groups"]["group_0"]["weights"]["symmetric"]
    was, now = tensors(model), tensors(result)
    for base in bases(was):
        (out, columns), w = was[base + ".weight"]
        codes, scales, zeros, group = matrix(result, now, base)
        assert (len(codes), len(codes[0])) == (out, columns), base
        for o in range(out):
            for i in range(columns):
                assert group[i] == i // size, (base, i)
                part = w[o * columns + i // size * size:o * columns + min((i // size + 1) * size, columns)]
                low, high, top = min(part + [0]), max(part + [0]), 2 ** bits - 1
                scale = half(max(high / (top // 2), -low / (top // 2 + 1)) if symmetric else (high - low) / top)
                zero = top // 2 + 1 if symmetric else min(max(round(-low / scale), 0), top)
                assert scales[o][group[i]] == scale and zeros[o][group[i]] == zero, (base, o, i, scales[o][group[i]], scale, zeros[o][group[i]], zero)
                exact = w[o * columns + i] / scale + zero
                want = min(max(round(exact), 0), top)
                assert codes[o][i] == want or abs(exact % 1 - 0.5) < 1e-4, (base, o, i, codes[o][i], exact)


def number(code):
    exponent, fraction = code >> 3 & 15, code & 7
    return (-1 if code & 128 else 1) * ((8 + fraction) * 2.0 ** (exponent - 10) if exponent else fraction * 2.0 ** -9)


def e4m3(model, result):
    c, was, now = config(result), tensors(model), tensors(result)
    weights = c["config_groups"]["group_0"]["weights"]
    assert c["format"] == "float-quantized" and (weights["type"], weights["strategy"], weights["num_bits"]) == ("float", "channel", 8), c
    numbers = sorted(number(code) for code in range(256) if code & 127 != 127)
    for base in bases(was):
        (out, columns), w = was[base + ".weight"]
        (shape, codes), (rows, scales) = now[base + ".weight"], now[base + ".weight_scale"]
        assert (shape, rows) == ([out, columns], [out, 1]), base
        for o in range(out):
            row, scale = w[o * columns:(o + 1) * columns], scales[o]
            assert 448 * scale >= max(map(abs, row)) > 440 * scale, (base, o, scale)
            for x, code in zip(row, codes[o * columns:(o + 1) * columns]):
                off = min(abs(n * scale - x) for n in numbers)
                assert abs(number(code) * scale - x) <= off + 1e-6 * abs(x), (base, o, x / scale, number(code))


def same(a, b):
    x, y = tensors(a), tensors(b)
    found = [name[:-8] for name in x if name.endswith(".qweight")] or [name[:-14] for name in x if name.endswith(".weight_packed")]
    assert found
    for base in found:
        assert values(a, x, base) == values(b, y, base), base


def folded(model, result):
    was, now = tensors(model), tensors(result)
    moved = dict(norm=0, v_proj=0, up_proj=0)
    for name, (shape, w) in was.items():
        if "layernorm" in name:
            assert all(struct.pack("<f", x)[:2] == b"\0\0" for x in now[name][1]) or now[name][1] == w, name
            moved["norm"] += max(abs(x / y) for x, y in zip(w, now[name][1])) > 1.2
        for part in ("v_proj", "up_proj"):
            if part + ".weight" in name:
                got = values(result, now, name[:-7])
                moved[part] += any(sum(map(abs, w[o * shape[1]:(o + 1) * shape[1]])) > 1.2 * sum(map(abs, got[o]))
                                   for o in range(shape[0]))
    print(moved)
    assert all(moved.values()), moved


def plot(file, panels, dots):
    svg, panels = "{http://www.w3.org/2000/svg}", int(panels)
    root = xml.etree.ElementTree.parse(file).getroot()
    width, height = map(float, root.get("viewBox").split()[2:])
    found = [[float(c.get(k)) for k in ("cx", "cy", "r")] for c in root.iter(svg + "circle")]
    grid = sorted(float(x.get("y1")) for x in root.iter(svg + "line") if x.get("class") == "grid")
    texts = [t.text for t in root.iter(svg + "text")]
    assert len(found) == int(dots) + 2, len(found)  # two of the legend
    assert all(r <= x <= width - r and r <= y <= height - r for x, y, r in found)
    assert texts.count("layer") == panels and "rtn" in texts, texts
    lines = len(grid) // panels  # of decades; each point is between the first and the last of a panel
    spans = [(grid[i], grid[i + lines - 1]) for i in range(0, len(grid), lines)]
    assert lines >= 2 and all(any(top - 0.01 <= y <= bottom + 0.01 for top, bottom in spans) for _, y, _ in found[2:]), spans


def interrupt(file, *command):
    signal.signal(signal.SIGINT, signal.SIG_DFL) # a shell that starts something beside itself has it ignored, and so has what is started there
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        while not os.path.exists(file) and child.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        sys.exit(child.wait())


if __name__ == "__main__":
    dict(outliers=outliers, nearest=nearest, e4m3=e4m3, same=same, folded=folded, interrupt=interrupt, plot=plot)[sys.argv[1]](*sys.argv[2:])
