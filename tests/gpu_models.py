"""Whole models on a card, against the processor; prints TAP.

  nodes     every node of every family, in bf16, fp16 and fp32, by `miniinfer verify --against cpu`: the checkpoints of
            tests/data/checkpoints, and shapes with heads of 64 to 256, which the fast kernels are for
  exact     in fp32 the card gives what `transformers` computes from those checkpoints
  pairs     every attention with every cache
  steps     recorded, node by node, and with kernels that do not overlap: bit for bit the same
  rows      quantised weights and steps of 2 to 65 rows, which take one kernel or another: every node of blocks as files have
            them; a prompt in pieces and whole, of what is rounded while it is loaded
  real      models of MI_MODELS: the tokens of the processor's reference mode, near ties aside, and every node

usage: gpu_models.py [--jobs N] [PART...].  Environment as in tests/reference.py; MI_TEST_DEVICE: another device than cuda.
"""
import argparse
import concurrent.futures
import glob
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time

import checkpoints

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ["MI_BUILDDIR"]
PROGRAM = os.path.join(BUILD, "miniinfer")
DEVICE = os.environ.get("MI_TEST_DEVICE", "cuda")
CARD = ["--engine.device", DEVICE]
DTYPES = ("bf16", "fp16", "fp32")
NEAR_TIE = {"bf16": 0.25, "fp16": 0.25, "fp32": 0.05}  # nats, as docs/verify.md has it
DATA = os.path.join(os.environ.get("MI_DATA") or os.path.join(HERE, "..", "..", "shared", "data"), "reference")
FOLDERS = os.environ.get("MI_MODELS", "").split(":") + [os.path.join(DATA, "..", "models")]
REAL = {"stories260k": "stories260K.gguf", "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf"}
EXACT = ["--engine.device", "cpu", "--engine.dtype", "fp32", "--engine.kv_dtype", "fp32", "--engine.linear", "reference",
         "--engine.attention", "simple"]
GREEDY = ["--sampler.chain", "greedy"]

LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], num_hidden_layers=2, hidden_size=512, intermediate_size=768,
             num_attention_heads=8, num_key_value_heads=2, vocab_size=1200, hidden_act="silu", rms_norm_eps=1e-5,
             rope_theta=10000.0, max_position_embeddings=1024, tie_word_embeddings=False)
SHAPES = {
    "llama, 4 heads of 64 a key head": LLAMA,
    "llama, heads of 96": dict(LLAMA, hidden_size=384, num_attention_heads=4, num_key_value_heads=4),
    "llama, heads of 256": dict(LLAMA, num_attention_heads=2, num_key_value_heads=1, head_dim=256),
    "qwen2, 7 heads of 64 a key head": dict(LLAMA, model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_size=896,
                                            num_attention_heads=14, tie_word_embeddings=True),
    "qwen3, heads of 128": dict(LLAMA, model_type="qwen3", architectures=["Qwen3ForCausalLM"], head_dim=128),
    "mistral, a window of 48": dict(LLAMA, model_type="mistral", architectures=["MistralForCausalLM"], head_dim=128,
                                    sliding_window=48),
    "gpt-neox, heads of 64": dict(model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"], num_hidden_layers=2,
                                  hidden_size=512, intermediate_size=2048, num_attention_heads=8, vocab_size=1200,
                                  hidden_act="gelu", layer_norm_eps=1e-5, rotary_pct=0.25, rotary_emb_base=10000,
                                  max_position_embeddings=1024, use_parallel_residual=True, tie_word_embeddings=False),
}


def miniinfer(*args, env=None):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True, check=False, timeout=300,
                          env=dict(os.environ, **env) if env else None)
    try:
        return done.returncode, json.loads(done.stdout), done.stderr.strip()
    except ValueError:
        return done.returncode, None, done.stderr.strip()


def some_ids(n, vocab, seed=1):
    draw = random.Random(seed)
    return ",".join(str(draw.randrange(vocab)) for _ in range(n))


# ---- jobs: each gives complaints, and a note --------------------------------------------------------

def verify(model, ids, flags, tokens=0, against="cpu"):
    status, got, error = miniinfer("verify", *model, "--ids", ids, *CARD, "--against", against, "-n", str(tokens), "--json",
                                   *flags)
    if not got:
        return [error or f"status {status}"], ""
    bad = [f"{n['runs_as']} of {n['plugin']}, {n['node']}: {n['worst']:.3g} of the limit, {n['where']}"
           for n in got["nodes"] if not n["ok"]]
    if status and not bad:
        bad = [f"tokens: {got['tokens']}"]
    worst = got["nodes"][0]
    return bad, f"{len(got['nodes'])} nodes, the worst at {worst['worst']:.2f} of its limit: {worst['runs_as']} {worst['node']}" + \
        (f"; tokens {got['tokens']}" if tokens else "")


def exact(folder, spec):
    wrong, worst = checkpoints.compare(folder, spec["prompts"][1::2], [*CARD, "--engine.dtype", "fp32"])
    return wrong, f"to {worst:.0e}"


def answer(model, ids, n, *flags, env=None):
    status, got, error = miniinfer("run", *model, "--ids", ids, "-n", str(n), "--ignore-eos", "--json", "--logprobs", "20", *flags,
                                   env=env)
    if status or not got:
        raise RuntimeError(error or f"status {status}")
    return got


def same_bits(model, ids, flags):
    base = [*CARD, "--engine.dtype", "bf16", *flags]
    ways = ("graphs = false", ["--engine.graphs", "false"], None), ("MI_CUDA_PDL=0", [], {"MI_CUDA_PDL": "0"})
    want = answer(model, ids, 64, "--prompt-logprobs", *base)
    wrong = []
    for name, more, env in ways:
        got = answer(model, ids, 64, "--prompt-logprobs", *base, *more, env=env)
        wrong += [f"{name}: {key} differ" for key in ("output_ids", "logprobs", "prompt_logprobs") if got[key] != want[key]]
    return wrong, f"64 tokens, {len(set(want['output_ids']))} of them different"


def in_pieces(model, ids, flags, limit):
    """Log probabilities of a prompt's tokens do not depend on how many rows a step has, but for rounding."""
    values = lambda *more: [math.nan if t["logprob"] is None else t["logprob"]
                            for t in answer(model, ids, 1, "--prompt-logprobs", *CARD, *flags, *more)["prompt_logprobs"]]
    whole, wrong, worst = values(), [], 0
    for rows in (2, 5, 20, 40):
        far = [abs(a - b) for a, b in zip(values("--engine.prefill_step", str(rows)), whole, strict=True)]
        rms = (sum(d * d for d in far) / len(far)) ** 0.5
        worst = max(worst, rms)
        if not rms <= limit:
            wrong.append(f"in pieces of {rows}: {rms:.3f} nats of root mean square from it whole")
    return wrong, f"to {worst:.4f} nats of root mean square"


def real_tokens(path, prompts, dtype):
    wrong, ties, total, n = [], [], 0, 48
    for prompt in prompts:
        ids = ",".join(map(str, prompt))
        want = answer(["-m", path], ids, n, *EXACT, *GREEDY)
        got = answer(["-m", path], ids, n, *CARD, "--engine.dtype", dtype, *GREEDY)
        total += n
        for step, (a, b) in enumerate(zip(got["output_ids"], want["output_ids"])):
            if a != b:
                top = want["logprobs"][step]["top"]
                gap = top[0][1] - dict(top).get(a, -99)
                ties.append(gap)
                if gap > NEAR_TIE[dtype]:
                    wrong.append(f"a prompt of {len(prompt)}: token {step} is {a}, not {b}, which leads by {gap:.3f} nats")
                break
    return wrong, f"{len(prompts)} prompts, {total} tokens, {len(ties)} prompts with a near tie" + \
        (f", to {max(ties):.3f} nats" if ties else "")


# ---- what there is to do -------------------------------------------------------------------------------

def nodes_jobs(folder):
    for file in sorted(glob.glob(os.path.join(HERE, "data", "checkpoints", "*.json"))):
        name = os.path.basename(file)[:-5]
        with open(file, encoding="utf-8") as f:
            spec = json.load(f)
        model = os.path.join(folder, name)
        checkpoints.write(model, spec)
        ids = ",".join(map(str, spec["prompts"][-1]["ids"]))
        for dtype in DTYPES:
            yield "nodes", f"{name}, {dtype}", verify, (["-m", model], ids, ["--engine.dtype", dtype, "--batch", "3"])
        yield "exact", f"{name}: as transformers in fp32", exact, (model, spec)
    for name, config in SHAPES.items():
        for dtype in DTYPES:
            yield "nodes", f"{name}, {dtype}", verify, (dummy(folder, config), some_ids(150, 1200),
                                                       ["--engine.dtype", dtype, "--batch", "6"])
        yield "nodes", f"{name}, one sequence", verify, (dummy(folder, config), some_ids(150, 1200), [])


def dummy(folder, config):
    path = os.path.join(folder, f"{abs(hash(json.dumps(config)))}.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    return ["-m", path, "--model.load", "dummy"]


def pairs_jobs(folder):
    for name in ("qwen2, 7 heads of 64 a key head", "mistral, a window of 48"):
        model, ids = dummy(folder, SHAPES[name]), some_ids(150, 1200)
        for attention in ("simple", "gqa", "flash"):
            for dtype in ("bf16", "fp16"):
                flags = ["--engine.dtype", dtype, "--engine.attention", attention]
                for cache, batch in (("full", 1), ("batch", 5)):
                    yield "pairs", f"{attention} with {cache}, {name}, {dtype}", verify, (
                        model, ids, [*flags, "--engine.cache", cache, "--batch", str(batch)], 24)
            yield "pairs", f"{attention} with none, {name}", verify, (
                model, some_ids(40, 1200), ["--engine.attention", attention, "--engine.cache", "none"], 16, "attention:simple")
        for cache, batch in (("full", 1), ("batch", 5)):
            yield "pairs", f"simple with {cache}, {name}, fp32", verify, (
                model, ids, ["--engine.dtype", "fp32", "--engine.attention", "simple", "--engine.cache", cache, "--batch", str(batch)], 24)


def steps_jobs(folder):
    for name in list(SHAPES)[::2]:
        model, ids = dummy(folder, dict(SHAPES[name], num_hidden_layers=4)), some_ids(70, 1200, 2)
        yield "steps", f"{name}, greedy", same_bits, (model, ids, GREEDY)
        yield "steps", f"{name}, sampled", same_bits, (model, ids, ["--sampler.seed", "7", "--sampler.temperature", "0.9"])


def rows_jobs(folder):
    for name in ("llama, heads of 96", "qwen2, 7 heads of 64 a key head"):
        model = dummy(folder, SHAPES[name])
        for stored in ("q4_0", "q4_1", "q8_0"):
            for rows in (3, 5, 20, 60, 65):
                yield "rows", f"{stored}, {rows} rows, {name}", verify, (
                    [*model, "--format.dummy.stored", stored], some_ids(rows, 1200, rows), ["--engine.dtype", "bf16"], 0, "fp32")
        for linear in ("int8", "int4", "fp8", "dense"):
            yield "rows", f"{linear}, in pieces, {name}", in_pieces, (
                model, some_ids(65, 1200, 3), ["--engine.dtype", "bf16", "--engine.linear", linear],
                0.06 if linear == "fp8" else 0.01)  # of many rows x is fp8, too
        for rows in (3, 60, 1000):
            yield "rows", f"fp8, {rows} rows, {name}", verify, (
                model, some_ids(rows, 1200, rows), ["--engine.dtype", "bf16", "--engine.linear", "fp8", "--engine.prefill_step", "1000"], 0, "fp32")
        for kv in ("fp8", "int8"):
            for batch in (1, 3, 6):
                yield "rows", f"a cache of {kv}, {batch} sequences, {name}", verify, (
                    model, some_ids(300, 1200, batch), ["--engine.dtype", "bf16", "--engine.kv_dtype", kv, "--batch", str(batch)], 0)


def prompts_of(model):
    file = os.path.join(DATA, f"logits_{model}.json")
    if os.path.exists(file):
        with open(file, encoding="utf-8") as f:
            return [p["ids"] for p in json.load(f)["prompts"] if p["n_tokens"] <= 300]
    return [list(map(int, some_ids(n, 500, n).split(","))) for n in (5, 20, 60)]


def real_jobs(_):
    for model, file in REAL.items():
        path = next((os.path.join(d, file) for d in FOLDERS if d and os.path.isfile(os.path.join(d, file))), None)
        if not path:
            yield "real", model, None, f"no {file} in MI_MODELS"
            continue
        prompts = prompts_of(model)
        ids = ",".join(map(str, max(prompts, key=len)[:120]))
        for dtype in DTYPES:
            yield "real", f"{model}, {dtype}: the processor's tokens", real_tokens, (path, prompts, dtype)
            yield "real", f"{model}, {dtype}: every node", verify, (["-m", path], ids, ["--engine.dtype", dtype], 32)


def attempt(function, args):
    since = time.monotonic()
    try:
        wrong, note = function(*args)
    except (RuntimeError, subprocess.TimeoutExpired, KeyError, IndexError) as e:
        wrong, note = [repr(e)], ""
    return wrong, f"{note}; {time.monotonic() - since:.1f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3, help="at once; more wait for each other on the card")
    parser.add_argument("parts", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        probe = subprocess.run([PROGRAM, "plan", *dummy(folder, LLAMA), *CARD], capture_output=True, text=True, check=False)
        if probe.returncode:
            print(f"1..0 # SKIP {probe.stderr.strip() or 'plan fails'}")
            return 0
        jobs = [j for make in (nodes_jobs, pairs_jobs, steps_jobs, rows_jobs, real_jobs) for j in make(folder)
                if not args.parts or j[0] in args.parts]
        failed = 0
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            results = [pool.submit(attempt, j[2], j[3]) if j[2] else None for j in jobs]
            for number, (job, result) in enumerate(zip(jobs, results), 1):
                if not result:
                    print(f"ok {number} - {job[0]}: {job[1]} # SKIP {job[3]}")
                    continue
                wrong, note = result.result()
                failed += bool(wrong)
                print("not ok" if wrong else "ok", number, "-", f"{job[0]}: {job[1]} ({note})", flush=True)
                for line in wrong[:6]:
                    print("#", line, flush=True)
        print(f"1..{len(jobs)}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
