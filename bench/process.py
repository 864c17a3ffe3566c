#!/usr/bin/env python3
"""Start-up time and peak memory of a whole process, with a warm file.

    bench/process.py --miniinfer ./miniinfer --model FILE [FILE ...]

Two JSON lines a model.  `start to first token`: from exec to the first byte of
the answer, ms; the limit beside it is the time to read the file once from the
page cache, measured in the same round.  `peak memory`: the process's largest
resident set after a prompt of 512 tokens and 64 drawn, MB; the limit is what
`plan` said would be allocated and mapped: ratio 1 would be a process that holds
all of it and nothing else.  Medians of --rounds.
"""
import argparse
import json
import os
import statistics
import subprocess
import time


def read_once(path):
    start = time.monotonic()
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass
    return time.monotonic() - start


def first_byte(command):
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as child:
        child.stdout.read(1)
        taken = time.monotonic() - start
        child.stdout.read()
    if child.returncode:
        raise SystemExit(f"process.py: {' '.join(command)} ended with {child.returncode}")
    return taken


def peak(command):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(command[0], command)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"process.py: {' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--miniinfer", required=True)
    parser.add_argument("--model", required=True, nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    for model in args.model:
        base = [args.miniinfer, "run", "--model.path", model, "--raw", "--sampler.chain", "greedy", "--ignore-eos"]
        name = os.path.basename(model)
        first_byte(base + ["-p", "Hello", "-n", "4"])
        rounds = [(read_once(model), first_byte(base + ["-p", "Hello", "-n", "4"])) for _ in range(args.rounds)]
        limit, value = (statistics.median(x) * 1000 for x in zip(*rounds))
        print(json.dumps({"name": f"start to first token, {name}", "value": round(value, 1), "unit": "ms",
                          "limit": round(limit, 1), "ratio": round(limit / value, 3)}), flush=True)

        plan = json.loads(subprocess.run([args.miniinfer, "plan", "--model.path", model, "--json"], check=True,
                                         capture_output=True, text=True).stdout)
        wanted = plan["allocated"] + plan["mapped"]
        ids = ",".join(str(i % 400 + 3) for i in range(512))
        largest = statistics.median(peak(base + ["--ids", ids, "-n", "64"]) for _ in range(3))
        print(json.dumps({"name": f"peak memory, {name}", "value": round(largest / 1e6, 1), "unit": "MB",
                          "limit": round(wanted / 1e6, 1), "ratio": round(largest / wanted, 3)}), flush=True)


if __name__ == "__main__":
    main()
