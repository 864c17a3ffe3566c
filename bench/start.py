#!/usr/bin/env python3
"""From the start of a process to its first token, with a warm file: on a card, with what the card's driver and the kernels
cost a process that has run nothing yet.

    bench/start.py [--miniinfer PROGRAM] [--model DIR] [--device cuda] [--rounds 5]

Without --model a checkpoint of Qwen2's 0.5B shape is written to a temporary folder (1 GB), random weights and a tokenizer of
151,643 entries.  Medians: from exec to the first byte of the answer, then the phases that `run -v` prints, some of which
run at the same time.  The marks (must 1200 ms, aim 800) are for that shape on an H100.
"""
import argparse
import json
import os
import random
import statistics
import string
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ENTRIES, MUST, AIM = 151643, 1200, 800


def byte_level_alphabet():
    """GPT-2's letters for the 256 bytes."""
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = (256 + i for i in range(256))
    return [chr(byte if byte in kept else next(rest)) for byte in range(256)]


def write_tokenizer(folder):
    """As large as Qwen2's: words of small letters, each merged from two that are there."""
    draw, words = random.Random(1), list(string.ascii_lowercase)
    vocab = {letter: i for i, letter in enumerate(byte_level_alphabet())}
    merges = []
    while len(vocab) < ENTRIES:
        a, b = draw.choice(words), draw.choice(words)
        if a + b not in vocab:
            vocab[a + b] = len(vocab)
            merges.append(f"{a} {b}")
            if len(a + b) <= 6:
                words.append(a + b)
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=level,
                       post_processor=None, decoder=level,
                       model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                                  end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, vocab=vocab, merges=merges)), f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(tokenizer_class="PreTrainedTokenizerFast"), f)


def write_checkpoint(program, folder):
    done = subprocess.run([program, "convert", os.path.join(HERE, "shapes", "qwen2-0.5b.json"), folder, "--model.load", "dummy"],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    write_tokenizer(folder)


def warm(folder):
    """Seconds that reading its files from the page cache takes."""
    for _ in range(2):
        since = time.monotonic()
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb", buffering=0) as f:
                while f.read(1 << 22):
                    pass
    return time.monotonic() - since


def first_token(command):
    """Milliseconds to the first byte of the answer, and what -v says of them."""
    since = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as child:
        child.stdout.read(1)
        taken = 1e3 * (time.monotonic() - since)
        _, said = child.communicate()
    if child.returncode:
        sys.exit(said.strip())
    phases = {}
    for line in said.splitlines():
        value, unit, what = (line.strip().split(None, 2) + ["", ""])[:3]
        if unit == "ms":
            phases[what] = float(value)
    return taken, phases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniinfer", default="./miniinfer")
    parser.add_argument("--model")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or os.path.join(folder, "qwen2-0.5b")
        if not args.model:
            write_checkpoint(args.miniinfer, model)
        read_ms = 1e3 * warm(model)
        command = [args.miniinfer, "run", "-m", model, "--raw", "-p", "hello", "-n", "4", "--ignore-eos", "-v",
                   "--engine.device", args.device, "--sampler.chain", "greedy"]
        rounds = [first_token(command) for _ in range(args.rounds)]
    taken = statistics.median(r[0] for r in rounds)
    verdict = "aim" if taken <= AIM else "must" if taken <= MUST else "MISSED"
    print(f"start to first token: {taken:.0f} ms ({min(r[0] for r in rounds):.0f} to {max(r[0] for r in rounds):.0f}); "
          f"must {MUST}, aim {AIM}: {verdict}; reading the files once takes {read_ms:.0f} ms")
    for what in rounds[0][1]:
        print(f"  {statistics.median(r[1].get(what, 0) for r in rounds):8.1f} ms  {what}")


if __name__ == "__main__":
    main()
