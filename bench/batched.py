#!/usr/bin/env python3
"""Many requests at once beside llama.cpp's llama-batched-bench, on the same file and as many threads.

    bench/batched.py --miniinfer ./miniinfer --llama-batched-bench PATH --model FILE.gguf [FILE.gguf ...]

Each of N requests has a prompt of its own of --prompt random tokens and draws --generate more behind the first;
all are there at once, and what counts is when the last is done: N (prompt + generate) tokens over that time.
llama-batched-bench computes all prompts, then steps of one token of each, and draws nothing; ours
(`miniinfer bench offline`, greedy) draws every token and takes prompts as its scheduler likes.

The two run in turn, round after round, so that whatever else the machine does meets both; a ratio is the median
of the rounds' ratios.  One JSON line a figure, tokens a second: `value` is ours, `peer` llama.cpp's.  The lines
named "decode" are of the steps behind all prompts alone, from `miniinfer bench batch`.
llama-batched-bench comes from a llama.cpp that you built for this machine (cmake -DGGML_NATIVE=ON).
"""
import argparse
import json
import os
import subprocess

from compare import fail, report, run


def ours(args, model, n):
    common = ["-m", model, "--sampler.chain", "greedy", "--backend.cpu.threads", str(args.threads), "--json"]
    common += args.options.split()
    whole = run([args.miniinfer, "bench", "offline", "--sequences", str(n), "--input", str(args.prompt),
                 "--output", str(args.generate + 1)] + common)
    steps = run([args.miniinfer, "bench", "batch", "--batch", str(n), "--context", str(args.prompt),
                 "--tokens", str(args.generate), "--rounds", "1"] + common)
    return n * (args.prompt + args.generate) / whole["seconds"], steps["results"][0]["tokens_per_s"]


def theirs(args, model, n):
    command = [args.llama_batched_bench, "-m", model, "-t", str(args.threads), "-tb", str(args.threads), "-ngl", "0",
               "-npp", str(args.prompt), "-ntg", str(args.generate), "-npl", str(n),
               "-c", str(max(n * (args.prompt + args.generate), 256)), "--output-format", "jsonl"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        fail(f"{' '.join(command[:1])} ended with {done.returncode} and {len(lines)} figures: {last}")
    return lines[0]["speed"], lines[0]["speed_tg"]


def compare(args, path):
    name = os.path.basename(path)
    load = round(os.getloadavg()[0], 2)
    for n in args.parallel:
        rounds = [(ours(args, path, n), theirs(args, path, n)) for _ in range(args.rounds)]
        for what, which in (("all", 0), ("decode", 1)):
            report(f"{name} {n} requests {what}", [(a[which], b[which]) for a, b in rounds], requests=n,
                   prompt=args.prompt, generate=args.generate, threads=args.threads, load=load)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniinfer", required=True)
    parser.add_argument("--llama-batched-bench", required=True)
    parser.add_argument("--model", required=True, nargs="+", metavar="FILE.gguf")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt (128)")
    parser.add_argument("--generate", type=int, default=64, help="steps that decode (64)")
    parser.add_argument("--parallel", default="1,4,8,16,32", help="requests at once (1,4,8,16,32)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", default="", help="further options for miniinfer, in one argument")
    args = parser.parse_args()
    args.parallel = [int(n) for n in args.parallel.split(",")]
    for program in (args.miniinfer, args.llama_batched_bench):
        if not os.access(program, os.X_OK):
            fail(f"{program} is no program; build it or name another")
    for path in args.model:
        compare(args, path)


if __name__ == "__main__":
    main()
