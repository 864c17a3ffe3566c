#!/usr/bin/env python3
"""How fast a card is used: the shapes of Qwen2 from 0.5B to 7B and of Qwen3-0.6B with random bf16 weights, through the engine.

    bench/card.py [--miniinfer PROGRAM] [--only 0.5B,7B] [--rounds 5] [--offline | --offline-only]

One line a figure: what was measured (a median), the limit that the card's memory, read in the same run, sets for it, and the
marks it is held against ("must" and "aim" are for an H100 SXM).  Of the offline workload also what the time went into.  Runs `miniinfer bench` for each; needs nothing but Python.
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = {"0.5B": "qwen2-0.5b", "1.5B": "qwen2-1.5b", "7B": "qwen2-7b", "Qwen3-0.6B": "qwen3-0.6b"}
# what: by model, (must, aim); milliseconds are at most, tokens a second at least
MARKS = {
    ("decode", 1, 128): {"0.5B": (0.50, 0.40), "1.5B": (1.20, 1.07), "7B": (4.80, 4.66)},
    ("decode", 1, 4096): {"0.5B": (0.52, 0.43), "1.5B": (1.28, 1.12), "7B": (4.95, 4.75)},
    ("decode", 32, 512): {"0.5B": (45e3, 56e3), "1.5B": (20e3, 22.7e3), "7B": (5.5e3, 6.0e3)},
    ("prefill", 1, 8192): {"0.5B": (370e3, 450e3), "1.5B": (160e3, 180e3), "7B": (42e3, 45e3)},
    ("offline",): {"0.5B": (70e3, 95e3), "1.5B": (33e3, 40e3), "7B": (10.9e3, 12.5e3), "Qwen3-0.6B": (19.5e3, 23.5e3)},
}


def bench(program, model, rounds, work, *options):
    command = [program, "bench", work, "-m", os.path.join(HERE, "shapes", f"{MODELS[model]}.json"), "--model.load", "dummy",
               "--engine.device", "cuda", *(["--rounds", str(rounds)] if rounds else []), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def line(model, result):
    batch, tokens = result["batch"], result.get("context", result.get("prompt"))
    must, aim = MARKS.get((result["work"], batch, tokens), {}).get(model, (None, None))
    in_ms = result["work"] == "decode" and batch == 1
    value = result["ms"] if in_ms else result["tokens_per_s"]
    verdict = ""
    if must:
        reached = [name for name, mark in (("must", must), ("aim", aim)) if (value <= mark if in_ms else value >= mark)]
        verdict = f"must {must:g}, aim {aim:g}: {reached[-1] if reached else 'MISSED'}"
    limit = f"{100 * result['limit_ms'] / result['ms']:.0f} % of {result['limit_ms']:.3f} ms" if "limit_ms" in result else \
            f"{result['flops_per_s'] / 1e12:.0f} TFLOP/s" if "flops_per_s" in result else ""
    host = f"host {result['host_us_per_step']:.1f} us" if "host_us_per_step" in result else ""
    shown = f"{value:.3f} ms" if in_ms else f"{value:,.0f} tokens/s"
    print(f"{model:10} {result['work']:8} {batch:3} x {tokens:5}  {shown:>18}  {limit:22} {host:16} {verdict}", flush=True)


def breakdown(result):
    """Shares of the run's time: what steps did, and where the device waited for the host."""
    parts, seconds = result.get("breakdown"), result["seconds"]
    if not parts:
        return
    share = lambda s: f"{100 * s / seconds:.1f} %"
    for kind, what in (("decode", "decode"), ("prompts", "with prompts")):
        k = parts[kind]
        print(f"{'':10}   {what:14} {k['steps']:5} steps {share(k['s']):>8}: GEMM {share(k['gemm_s'])}, attention "
              f"{share(k['attention_s'])}, both in one {share(k['layers_s'])}, sampling {share(k['sampling_s'])}, the rest "
              f"{share(k['rest_s'])}")
    exposed_us = 1e6 * parts["host_exposed_s"] / max(parts["decode"]["steps"] + parts["prompts"]["steps"], 1)
    print(f"{'':10}   host exposed {share(parts['host_exposed_s'])}, {exposed_us:.1f} us a step, not accounted for {share(parts['not_accounted_s'])}; "
          f"cache: {share(result['kv_most'] / result['kv_positions'] * seconds)} taken at most, hit rate {result['hit_rate']:.3f}, "
          f"{result['preemptions']} preemptions", flush=True)


def offline(program, model):
    """256 requests at once, until the last is answered."""
    result = bench(program, model, None, "offline")
    must, aim = MARKS["offline",][model]
    value = result["tokens_out_per_s"]
    reached = [name for name, mark in (("must", must), ("aim", aim)) if value >= mark]
    read = f"{100 * result['limit_s'] / result['seconds']:.0f} % of what reading takes at {result['bytes_per_s'] / 1e12:.2f} TB/s, " \
        if "limit_s" in result else ""
    print(f"{model:10} offline  {result['sequences']:3} of {result['tokens_out']}  {value:,.0f} tokens/s out in {result['seconds']:.3f} s, "
          f"{read}{result['steps']:.0f} steps, host {result['host_us_per_step']:.1f} us  must {must:g}, aim {aim:g}: "
          f"{reached[-1] if reached else 'MISSED'}", flush=True)
    breakdown(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniinfer", default="./miniinfer")
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--offline", action="store_true", help="256 requests of 100 to 1,024 tokens each way, too")
    parser.add_argument("--offline-only", action="store_true", help="nothing but these")
    args = parser.parse_args()
    for model in args.only.split(","):
        if model not in MODELS:
            parser.error(f"{model} is none of {', '.join(MODELS)}")
    for model in args.only.split(","):
        if args.offline_only:
            offline(args.miniinfer, model)
            continue
        greedy = ("--sampler.chain", "greedy")
        one = bench(args.miniinfer, model, args.rounds, "decode", "--context", "128,4096", *greedy)
        print(f"{model}: read at {one.get('bytes_per_s', 0) / 1e12:.2f} TB/s; ready after {one['ready_ms']:.0f} ms, first token "
              f"after {one['first_token_ms']:.0f} ms (0.5B: must 1200, aim 800)", flush=True)
        many = bench(args.miniinfer, model, args.rounds, "batch", "--batch", "32", "--context", "512", "--tokens", "64",
                     "--engine.cache", "batch", *greedy)
        prompt = bench(args.miniinfer, model, args.rounds, "prefill", "--prompt-tokens", "8192", "--engine.prefill_step", "8192",
                       "--engine.max_len", "8256", *greedy)
        for report in (one, many, prompt):
            for result in report["results"]:
                line(model, result)
        if args.offline:
            offline(args.miniinfer, model)


if __name__ == "__main__":
    main()
