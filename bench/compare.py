#!/usr/bin/env python3
"""Decode and prompt speed beside llama.cpp's, on the same file and as many threads.

    bench/compare.py --miniinfer ./miniinfer --llama-bench PATH --model FILE.gguf [FILE.gguf ...]

The two run in turn, round after round, so that whatever else the machine does
meets both; a ratio is the median of the rounds' ratios.  llama-bench comes from
a llama.cpp that you built for this machine (cmake -DGGML_NATIVE=ON).

One JSON line a figure, tokens a second: `value` is ours, `peer` llama.cpp's,
`ratio` ours over its.  Decoding also says which `share` of this machine's read
bandwidth, measured between the rounds, its weights take: bytes of weights read
for a token, times tokens a second, over bandwidth.  The limit is 1.  `load` is
the machine's load average before the first round: figures of a busy machine
say little.
"""
import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys

GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value, by type
GGUF_STRING, GGUF_ARRAY = 8, 9


def fail(message):
    sys.exit(f"compare.py: {message}")


class Gguf:
    """As much of a GGUF header as tells how large each tensor is."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.path = path
        self.keys = {}
        if self.file.read(4) != b"GGUF":
            fail(f"{path} is no GGUF file")
        version, n_tensors, n_keys = self.unpack("<IQQ")
        if version not in (2, 3):
            fail(f"{path} is GGUF version {version}; 2 and 3 are read")
        for _ in range(n_keys):
            key = self.string()
            self.keys[key] = self.value(self.unpack("<I")[0])
        infos = [self.tensor() for _ in range(n_tensors)]
        align = self.keys.get("general.alignment", 32)
        start = (self.file.tell() + align - 1) // align * align
        ends = sorted(offset for _, _, offset in infos)[1:] + [os.path.getsize(path) - start]
        by_offset = sorted(infos, key=lambda info: info[2])
        self.shapes = {name: shape for name, shape, _ in infos}
        self.bytes = {name: end - offset for (name, _, offset), end in zip(by_offset, ends)}

    def unpack(self, form):
        data = self.file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            fail(f"{self.path} ends within its header")
        return struct.unpack(form, data)

    def string(self):
        (n,) = self.unpack("<Q")
        return self.file.read(n).decode("utf-8", "replace")

    def value(self, kind):
        if kind == GGUF_STRING:
            return self.string()
        if kind != GGUF_ARRAY:
            return int.from_bytes(self.file.read(GGUF_SIZES[kind]), "little")  # whole numbers are all we use
        of, n = self.unpack("<IQ")
        if of in (GGUF_STRING, GGUF_ARRAY):
            for _ in range(n):
                self.value(of)
        else:
            self.file.seek(n * GGUF_SIZES[of], os.SEEK_CUR)
        return n

    def tensor(self):
        name = self.string()
        (n_dims,) = self.unpack("<I")
        shape = self.unpack(f"<{n_dims}Q")
        _, offset = self.unpack("<IQ")
        return name, shape, offset

    def read_per_token(self):
        """All weights; of an embedding that is not the head as well, one row."""
        total = sum(self.bytes.values())
        if "output.weight" in self.bytes:
            embedding = self.bytes["token_embd.weight"]
            total += embedding // self.shapes["token_embd.weight"][1] - embedding
        return total

    def n_vocab(self):
        return self.shapes["token_embd.weight"][1]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        fail(f"{' '.join(command[:2])} ended with {done.returncode}: {last[0]}")
    return json.loads(done.stdout)


def ours(args, model, ids, n):
    command = [args.miniinfer, "run", "--model.path", model, "--raw", "--ids", ",".join(map(str, ids)), "-n", str(n),
               "--sampler.chain", "greedy", "--ignore-eos", "--json", "--backend.cpu.threads", str(args.threads)]
    return run(command + args.options.split())["timings"]


def our_speeds(args, model, n_vocab):
    """llama-bench decodes from an empty context: one token, then as many steps as asked."""
    words = random.Random(1)
    prompt = [words.randrange(n_vocab) for _ in range(args.prompt)]
    decode = ours(args, model, prompt[:1], args.generate + 1)["decode_tokens_per_s"]
    return ours(args, model, prompt, 1)["prompt_tokens_per_s"], decode


def their_speeds(args, model):
    runs = run([args.llama_bench, "-m", model, "-t", str(args.threads), "-p", str(args.prompt), "-n",
                str(args.generate), "-r", "1", "-ngl", "0", "-o", "json"])
    return tuple(next(r["avg_ts"] for r in runs if bool(r["n_gen"]) == decodes) for decodes in (False, True))


def report(name, rounds, **more):
    mine, theirs = zip(*rounds)
    line = {"name": name, "value": round(statistics.median(mine), 2), "unit": "tokens/s",
            "peer": round(statistics.median(theirs), 2),
            "ratio": round(statistics.median(a / b for a, b in rounds), 3)}
    line.update(more)
    line["rounds"] = [[round(a, 1), round(b, 1)] for a, b in rounds]
    print(json.dumps(line), flush=True)


def compare(args, path):
    gguf, name = Gguf(path), os.path.basename(path)
    load = round(os.getloadavg()[0], 2)
    if load > 1.5 * args.threads:
        print(f"compare.py: {load} processes run on {os.cpu_count()} processors; on a busy machine threads that wait "
              "for each other by spinning lose more than their share", file=sys.stderr)
    prompt, decode, bandwidth = [], [], []
    for _ in range(args.rounds):
        mine = our_speeds(args, path, gguf.n_vocab())
        theirs = their_speeds(args, path)
        bandwidth.append(run([args.bandwidth, str(args.threads), "5"])["value"])
        prompt.append((mine[0], theirs[0]))
        decode.append((mine[1], theirs[1]))
    limit = round(statistics.median(bandwidth), 2)
    weights = gguf.read_per_token()
    rate = statistics.median(a for a, _ in decode)
    report(f"{name} prompt {args.prompt}", prompt, threads=args.threads, load=load)
    report(f"{name} decode {args.generate}", decode, threads=args.threads, load=load, bandwidth_gb_s=limit,
           weight_bytes=weights, share=round(weights * rate / (limit * 1e9), 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniinfer", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--model", required=True, nargs="+", metavar="FILE.gguf")
    parser.add_argument("--bandwidth", help="the built bench/bandwidth; default: beside miniinfer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt (512)")
    parser.add_argument("--generate", type=int, default=64, help="tokens to decode (64)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", default="", help="further options for miniinfer, in one argument")
    args = parser.parse_args()
    args.bandwidth = args.bandwidth or os.path.join(os.path.dirname(os.path.abspath(args.miniinfer)), "bench/bandwidth")
    for program in (args.miniinfer, args.llama_bench, args.bandwidth):
        if not os.access(program, os.X_OK):
            fail(f"{program} is no program; build it or name another")
    for path in args.model:
        compare(args, path)


if __name__ == "__main__":
    main()
