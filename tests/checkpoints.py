"""Small checkpoints of every model family and rotary scaling, against what `transformers` computes from them; prints TAP.

Each file of tests/data/checkpoints holds a configuration, how to fill the weights from a seeded generator, and the expected
log probabilities and greedy tokens; tests/make_checkpoints.py made them.  This script writes the checkpoint with nothing but
Python's own library and runs MiniInfer on it.  Environment as in tests/reference.py.
"""
import glob
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

TOLERANCE = 1e-3
BYTES = 256  # tokens 0 to 255; then <s> and </s>


def byte_level_alphabet():
    """GPT-2's letters for the 256 bytes."""
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, extra = [], 0
    for byte in range(BYTES):
        letters.append(chr(byte if byte in kept else BYTES + extra))
        extra += byte not in kept
    return letters


def tokenizer():
    added = [dict(id=BYTES + i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, text in enumerate(["<s>", "</s>"])]
    return dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
                pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
                post_processor=None,
                decoder=dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
                model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                           end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                           vocab={letter: byte for byte, letter in enumerate(byte_level_alphabet())}, merges=[]))


def values(name, n, mean, deviation):
    """n numbers of that mean and deviation, evenly spread, the same for a name everywhere."""
    number, width = random.Random(name).random, deviation * 12 ** 0.5
    return [mean + width * (number() - 0.5) for _ in range(n)]


def write_weights(path, tensors):
    """A safetensors file; tensors: [name, shape, mean, deviation], all f32."""
    header, at = {}, 0
    for name, shape, _, _ in tensors:
        n = 4
        for size in shape:
            n *= size
        header[name] = dict(dtype="F32", shape=shape, data_offsets=[at, at + n])
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, _, mean, deviation in tensors:
            first, last = header[name]["data_offsets"]
            n = (last - first) // 4
            f.write(struct.pack(f"<{n}f", *values(name, n, mean, deviation)))


def write_texts(folder, config):
    """All but the weights."""
    os.makedirs(folder, exist_ok=True)
    for file, content in (("config.json", config), ("tokenizer.json", tokenizer())):
        with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
            json.dump(content, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>"), f)


def write(folder, spec):
    write_texts(folder, spec["config"])
    write_weights(os.path.join(folder, "model.safetensors"), spec["tensors"])


def answers(model, prompts, flags, n_greedy=None, timeout=1200):
    """What `batch` says of prompts, one after the other and each alone: one process reads the model once for all.

    RuntimeError: it failed."""
    with tempfile.TemporaryDirectory() as folder:
        requests, out = os.path.join(folder, "requests"), os.path.join(folder, "answers")
        with open(requests, "w", encoding="utf-8") as f:
            for number, prompt in enumerate(prompts):
                json.dump(dict(id=number, ids=prompt["ids"], max_tokens=n_greedy or len(prompt["greedy"]), ignore_eos=True,
                               logprobs=20, prompt_logprobs=True), f)
                f.write("\n")
        done = subprocess.run([os.path.join(os.environ["MI_BUILDDIR"], "miniinfer"), "batch", requests, "-o", out, "-m", model,
                               "--order", "input", "--batch-size", "1", "--sampler.chain", "greedy", *flags],
                              capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"status {done.returncode}")
        with open(out, encoding="utf-8") as f:
            got = [json.loads(line) for line in f]
    if [a["id"] for a in got] != list(range(len(prompts))):
        raise RuntimeError(f"answers to {[a['id'] for a in got]}, not to all of {len(prompts)} prompts")
    return got


def compare_answer(got, prompt, tolerance):
    """Complaints about one answer, and how far off the worst value is."""
    wrong = []
    mine = [t["logprob"] for t in got.get("prompt_logprobs", [])]
    if len(mine) != len(prompt["prompt_logprobs"]):
        wrong.append(f"{len(mine)} log probabilities of the prompt")
    top, want = dict(got["logprobs"][0]["top"]), dict(prompt["top20"])
    worst = max([abs(a - b) for a, b in zip(mine, prompt["prompt_logprobs"])] +
                [abs(top[i] - want[i]) for i in top if i in want] or [9])
    if worst > tolerance or len(set(top) & set(want)) < 18:
        wrong.append(f"log probabilities differ by up to {worst:.6f}, {len(set(top) & set(want))} of 20 in common")
    if len(got["output_ids"]) != len(prompt["greedy"]):
        wrong.append(f"{len(got['output_ids'])} tokens, not {len(prompt['greedy'])}")
    for step, (a, b) in enumerate(zip(got["output_ids"], prompt["greedy"])):
        if a != b:
            if prompt["greedy_gap"][step] >= tolerance:
                wrong.append(f"greedy token {step} is {a}, not {b}, which leads by {prompt['greedy_gap'][step]:.4f}")
            break
    return wrong, worst


def compare(folder, prompts, flags, tolerance=TOLERANCE):
    """Complaints about all prompts, and how far off the worst value is."""
    try:
        results = [compare_answer(*pair, tolerance) for pair in zip(answers(folder, prompts, flags), prompts)]
    except RuntimeError as e:
        return [str(e)], 0
    return [w for wrong, _ in results for w in wrong], max(worst for _, worst in results)


MODES = (
    ("reference", ["--engine.dtype", "fp32"]),
    ("no cache", ["--engine.dtype", "fp32", "--engine.cache", "none", "--engine.attention", "simple"]),
    ("gqa in small steps", ["--engine.dtype", "fp32", "--engine.attention", "gqa", "--engine.prefill_step", "16"]),
)


def main():
    files = sorted(glob.glob(os.path.join(os.environ["MI_SRCDIR"], "tests", "data", "checkpoints", "*.json")))
    print(f"1..{len(files) * len(MODES)}")
    number = 0
    for file in files:
        with open(file, encoding="utf-8") as f:
            spec = json.load(f)
        with tempfile.TemporaryDirectory() as folder:
            write(folder, spec)
            for mode, flags in MODES:
                number += 1
                wrong, worst = compare(folder, spec["prompts"], flags)
                name = os.path.basename(file)[:-5]
                print("not ok" if wrong else "ok", number, "-", f"{name}, {mode}: as transformers, to",
                      f"{worst:.0e}", flush=True)
                for line in wrong[:6]:
                    print("#", line)


if __name__ == "__main__":
    sys.exit(main())
