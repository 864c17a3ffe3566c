"""Compares MiniInfer with reference values that other programs computed; prints TAP.

Log probabilities, greedy continuations, token vectors and perplexity of real models, from the files of the model and again
after `convert`.  Where the values come from and what agreement means is said in the data's own README.

  MI_BUILDDIR    the build
  MI_DATA        the folder that holds reference/
  MI_MODELS      folders with the .gguf files, separated by ':'
  MI_REFERENCE   quick (as in make check): the tiny model, and a few values of the small one; all: everything
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import checkpoints

BUILD = os.environ["MI_BUILDDIR"]
DATA = os.path.join(os.environ["MI_DATA"], "reference")
FOLDERS = os.environ.get("MI_MODELS", "").split(":") + [os.path.join(os.environ["MI_DATA"], "models")]
ALL = os.environ.get("MI_REFERENCE", "quick") == "all"
FILES = {
    "stories260k": "stories260K.gguf",
    "smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "qwen2": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
}
# The reference mode: dequantised weights, fp32 throughout, plain loops.
EXACT = ["--engine.dtype", "fp32", "--engine.kv_dtype", "fp32", "--engine.linear", "reference",
         "--engine.attention", "simple", "--sampler.chain", "greedy"]
TOLERANCE = 1e-3  # of a log probability, and the gap below which two tokens are as good as tied

number = 0


def result(ok, what, details=()):
    global number
    number += 1
    print("ok" if ok else "not ok", number, "-", what, flush=True)
    for line in list(details)[:8]:
        print("#", line, flush=True)


def skip(what, why):
    global number
    number += 1
    print("ok", number, "-", what, "# SKIP", why, flush=True)


def load(name):
    with open(os.path.join(DATA, name + ".json"), encoding="utf-8") as f:
        return json.load(f)


def run(*args, stdin=b""):
    done = subprocess.run([os.path.join(BUILD, "miniinfer"), *args], input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}")
    return done.stdout


def miniinfer(*args):
    return json.loads(run(*args))


def model_file(model):
    for folder in FOLDERS:
        path = os.path.join(folder, FILES[model]) if folder else ""
        if path and os.path.isfile(path):
            return path
    return None


# ---- log probabilities and greedy text ---------------------------------------------------------------
def answer(path, prompt, n_greedy):
    ids = ",".join(map(str, prompt["ids"]))
    return miniinfer("run", "--model.path", path, "--ids", ids, "-n", str(n_greedy), "--ignore-eos", "--json",
                     "--logprobs", "20", "--prompt-logprobs", *EXACT)


def compare_answer(got, prompt, n_greedy):
    """Complaints about the answer to one prompt; none: it agrees."""
    wrong = []
    total = sum(t["logprob"] for t in got.get("prompt_logprobs", []))
    worst_sum = abs(total - prompt["sum_logprob"])
    if worst_sum > TOLERANCE:
        wrong.append(f"sum of log probabilities {total:.6f}, expected {prompt['sum_logprob']:.6f}")
    want = dict(prompt["top20"])
    mine = dict(got["logprobs"][0]["top"])
    worst = max((abs(mine[i] - want[i]) for i in mine if i in want), default=9.0)
    missing = [i for i in want if i not in mine and want[i] > min(mine.values()) + TOLERANCE]
    if worst > TOLERANCE or missing:
        wrong.append(f"top 20 differ by up to {worst:.6f}, missing {missing}")
    for step, (a, b) in enumerate(zip(got["output_ids"], prompt["greedy"])):
        if a != b:
            if prompt["greedy_gap"][step] >= TOLERANCE:
                wrong.append(f"greedy token {step} is {a}, expected {b}, which leads by {prompt['greedy_gap'][step]}")
            break
    if len(got["output_ids"]) != n_greedy:
        wrong.append(f"{len(got['output_ids'])} tokens, not {n_greedy}")
    return wrong, f"top 20 within {worst:.1e}, sum within {worst_sum:.1e}"


def compare_logits(model, path, prompts, n_greedy, after=""):
    """A run for each prompt of the tiny model; the others are read once for all prompts, by a batch of one at a time."""
    many, failed = {}, None
    if model != "stories260k" and len(prompts) > 1:
        try:
            many = dict(enumerate(checkpoints.answers(path, prompts, EXACT, n_greedy, timeout=None)))
        except RuntimeError as e:
            failed = e
    for i, prompt in enumerate(prompts):
        what = f"{model}{after}: {prompt['name']}, {prompt['n_tokens']} tokens, log probabilities and {n_greedy} greedy tokens"
        try:
            if failed:
                raise failed
            wrong, note = compare_answer(many.get(i) or answer(path, prompt, n_greedy), prompt, n_greedy)
            result(not wrong, what, wrong or [note])
        except (RuntimeError, KeyError, IndexError) as e:
            result(False, what, [repr(e)])


def compare_text_prompts(model, path):
    """--raw -p encodes a text as the reference did."""
    wrong = []
    for prompt in load("logits_" + model)["prompts"]:
        if prompt["kind"] != "text" or not prompt["text"]:
            continue
        got = miniinfer("run", "--model.path", path, "--raw", "-p", prompt["text"], "-n", "1", "--json", *EXACT[-2:],
                        *(EXACT if model == "stories260k" else []))
        if got["prompt_ids"] != prompt["ids"]:
            wrong.append(f"{prompt['name']}: {got['prompt_ids'][:10]}, expected {prompt['ids'][:10]}")
    result(not wrong, f"{model}: ids of run --raw -p", wrong)


# ---- tokens ------------------------------------------------------------------------------------------
def compare_tokens(model, path, step, after=""):
    """Each text in a process of its own for the tiny model; the others' vocabulary is read once for all."""
    wrong, checked = [], 0
    vectors = load("tokenizer_" + model)["vectors"][::step]
    for key, flags in (("ids", ["--special"]), ("ids_plain", [])):
        texts = [v["text"].encode() for v in vectors]
        together = [] if model == "stories260k" else [t for t in texts if b"\0" not in t]
        answers = iter(tokenize(path, b"".join(t + b"\0" for t in together), [*flags, "--null"]))
        for vector, text in zip(vectors, texts):
            got = next(answers) if text in together else tokenize(path, text, flags)[0]
            want = vector.get(key, vector["ids"])
            checked += 1
            if got != want:
                wrong.append(f"vector {vector['id']} {key}: {got[:12]}, expected {want[:12]}")
        if next(answers, None) is not None:
            wrong.append(f"{key}: more answers than {len(together)} texts")
    result(not wrong, f"{model}{after}: {checked} token vectors", wrong)


def tokenize(path, texts, flags):
    """Ids of each text."""
    done = run("tokenize", "--model.path", path, "--json", *flags, stdin=texts)
    return [json.loads(line)["ids"] for line in done.splitlines()]


# ---- perplexity --------------------------------------------------------------------------------------
def compare_perplexity(model, path, n_windows):
    """The path that users get: weights as stored, activations rounded."""
    import math
    want = load("perplexity")["models"][model]
    n = min(n_windows, want["windows_used"])
    windows = want["windows"][:n]
    half = math.exp(sum(w["nll_half"] for w in windows) / (255 * n))
    whole = math.exp(sum(w["nll_all"] for w in windows) / (511 * n))
    got = miniinfer("perplexity", "--model.path", path, "-f", os.path.join(DATA, "eval_text.txt"), "--window", "512",
                    "--windows", str(n), "--json")
    wrong = [f"{key}: {got[key]:.4f}, expected {value:.4f} within 1 %"
             for key, value in (("ppl", whole), ("ppl_second_half", half)) if abs(got[key] / value - 1) > 0.01]
    if got["tokens"] != 511 * n:
        wrong.append(f"{got['tokens']} tokens, expected {511 * n}")
    result(not wrong, f"{model}: perplexity over {n} windows within 1 %", wrong or
           [f"{got['ppl_second_half']:.4f} over second halves, exact {half:.4f}"])


# ---- after convert -----------------------------------------------------------------------------------
def compare_converted(model, path, prompts, n_greedy, step):
    with tempfile.TemporaryDirectory() as folder:
        need = os.path.getsize(path) * 8
        if shutil.disk_usage(folder).free < need:
            return skip(f"{model} after convert", f"{need >> 20} MB of disk are not free")
        directory = os.path.join(folder, model)
        done = subprocess.run([os.path.join(BUILD, "miniinfer"), "convert", path, directory, "--dtype", "f32"],
                              capture_output=True, text=True, check=False)
        result(done.returncode == 0, f"{model}: convert to safetensors", [done.stderr.strip()])
        if done.returncode == 0:
            compare_logits(model, directory, prompts, n_greedy, " after convert")
            compare_tokens(model, directory, step, " after convert")
    return None


def compare(model):
    path = model_file(model)
    if not path:
        return skip(model, f"no {FILES[model]} in MI_MODELS")
    tiny = model == "stories260k"
    prompts = load("logits_" + model)["prompts"]
    few = [p for p in prompts if p["n_tokens"] <= 40]
    compare_logits(model, path, prompts if ALL or tiny else few[:1], 64 if ALL or tiny else 12)
    compare_tokens(model, path, 1 if ALL else 20)
    if ALL or tiny:
        compare_text_prompts(model, path)
        compare_converted(model, path, prompts if tiny else few, 64 if tiny else 32, 10)
    if ALL and not tiny:
        compare_perplexity(model, path, 14)
    return None


def main():
    if not os.path.isdir(DATA):
        print("1..0 # SKIP no reference data; MI_DATA says where it is")
        return
    for model in sys.argv[1:] or (FILES if ALL else ["stories260k", "smollm2"]):
        compare(model)
    print(f"1..{number}")


main()
