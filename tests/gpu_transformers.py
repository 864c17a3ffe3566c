"""Checkpoints of Qwen2's real shapes with random weights, as `transformers` and as MiniInfer compute them on a card; prints TAP.

For each shape the script writes a seeded bf16 checkpoint (safetensors, several files) and compares log probabilities of a
prompt's tokens, of the likeliest tokens at each of its positions, and at each of 16 greedy steps:

  exact   what transformers gives in float32 on the same card
  theirs  transformers in bf16, with its head in float32, so that only the layers round
  ours    MiniInfer in bf16, as it is configured by itself

Ours may be as far from exact as theirs is, and half as much again; in fp32 as good as equal.  The 16 tokens are those of
exact, but where that holds two for about as likely.

usage: gpu_transformers.py [--only 0.5b,1.5b,7b] [--folder DIR] [--keep] [--device cpu --layers N]
  --folder  where checkpoints are written (3 GB, the 7B shape 15 GB); --keep: and left
Environment: MI_BUILDDIR.  Needs torch, transformers and, unless --device says otherwise, a card.
"""
import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

N_PROMPT, N_GREEDY, TOPS = 200, 16, 20
FACTOR = 1.5        # ours to theirs
EXACT_LIMIT = 2e-3  # nats, of fp32 against float32, root mean square
NEAR_TIE = 0.25     # nats, as docs/verify.md has it; or four times what rounding moves transformers' log probabilities
FILE_BYTES = 4 << 30
SHAPES = {
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                 vocab_size=151936, tie_word_embeddings=True),
    "1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
                 vocab_size=151936, tie_word_embeddings=True),
    "7b": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
               vocab_size=152064, tie_word_embeddings=False),
}
COMMON = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_act="silu", rms_norm_eps=1e-6, rope_theta=1e6,
              max_position_embeddings=32768, torch_dtype="bfloat16", use_sliding_window=False, bos_token_id=None, eos_token_id=1)

try:
    import torch
    import transformers
    from safetensors.torch import save_file
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)


# ---- a checkpoint ---------------------------------------------------------------------------------------

def tensors(config):
    """Name, shape, mean and deviation of every weight.  Logits have a deviation of about 3, attention looks at something,
    what a layer adds is small beside what it adds to, as in models that learnt."""
    hidden, mlp, n = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = hidden // config["num_attention_heads"]
    kv, last = head * config["num_key_value_heads"], (2 * n) ** -0.5
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden), 0, 3 * hidden ** -0.5
    for i in range(n):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", (hidden,), 1, 0.2
        for name, out, scale in (("q", hidden, 1.5), ("k", kv, 1.5), ("v", kv, 1)):
            yield f"{at}self_attn.{name}_proj.weight", (out, hidden), 0, scale * hidden ** -0.5
            yield f"{at}self_attn.{name}_proj.bias", (out,), 0, 0.5
        yield at + "self_attn.o_proj.weight", (hidden, hidden), 0, last * hidden ** -0.5
        yield at + "post_attention_layernorm.weight", (hidden,), 1, 0.2
        yield at + "mlp.gate_proj.weight", (mlp, hidden), 0, hidden ** -0.5
        yield at + "mlp.up_proj.weight", (mlp, hidden), 0, hidden ** -0.5
        yield at + "mlp.down_proj.weight", (hidden, mlp), 0, last * 2 * mlp ** -0.5
    yield "model.norm.weight", (hidden,), 1, 0.2
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden), 0, 3 * hidden ** -0.5


def write_checkpoint(folder, config, device):
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    generator = torch.Generator(device).manual_seed(20)
    file, held, names, total = {}, 0, [], 0
    files = []

    def flush():
        files.append(list(file))
        save_file(file, os.path.join(folder, f"part-{len(files)}.safetensors"), metadata={"format": "pt"})
        file.clear()

    for name, shape, mean, deviation in tensors(config):
        x = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        x = x.mul_(deviation).add_(mean).to(torch.bfloat16).cpu()
        if held + x.nbytes > FILE_BYTES:
            flush()
            held = 0
        file[name] = x
        held += x.nbytes
        total += x.nbytes
    flush()
    names = {name: f"part-{i}.safetensors" for i, part in enumerate(files, 1) for name in part}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
        json.dump(dict(metadata=dict(total_size=total), weight_map=names), f)
    return total


# ---- what each side gives ---------------------------------------------------------------------------------

def miniinfer(folder, ids, n, flags):
    done = subprocess.run([os.path.join(os.environ["MI_BUILDDIR"], "miniinfer"), "run", "-m", folder, "--ids",
                           ",".join(map(str, ids)), "-n", str(n), "--ignore-eos", "--json", "--logprobs", str(TOPS),
                           "--prompt-logprobs", "--sampler.chain", "greedy", *flags],
                          capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"status {done.returncode}")
    return json.loads(done.stdout)


def log_probabilities(folder, ids, dtype, device):
    """[len(ids), vocabulary], of what follows each; the head in float32 whatever the layers have."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids], device=device)).last_hidden_state[0].float()
        logits = hidden @ model.lm_head.weight.float().T
        result = logits.log_softmax(-1)
    del model, hidden, logits
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    return result


def pairs(got):
    """(row, id, log probability) of everything that an answer says; row: the position that it follows."""
    n = len(got["prompt_ids"])
    for i, entry in enumerate(got["prompt_logprobs"]):
        yield i, entry["id"], entry["logprob"]
        for token, value in entry.get("top", []):
            yield i, token, value
    for i, entry in enumerate(got["logprobs"]):
        for token, value in entry["top"]:
            yield n - 1 + i, token, value


def distance(got, exact, other=None):
    """Root mean square and largest, of what was said, or of `other` at the same places."""
    said = list(pairs(got))
    rows, ids = torch.tensor([p[0] for p in said]), torch.tensor([p[1] for p in said])
    mine = torch.tensor([p[2] for p in said], dtype=torch.float64) if other is None else other[rows, ids].double().cpu()
    d = mine - exact[rows, ids].double().cpu()
    return float(d.square().mean().sqrt()), float(d.abs().max()), len(said)


# ---- a shape -------------------------------------------------------------------------------------------------

number = failed = 0


def check(ok, what, *notes):
    global number, failed
    number += 1
    failed += not ok
    print("ok" if ok else "not ok", number, "-", what, flush=True)
    for note in notes:
        print("#", note, flush=True)


def greedy_agrees(name, tokens, exact, first, tie):
    """Each of the tokens is the likeliest, or about as likely, given those before it."""
    gaps = [float(exact[first + i].max() - exact[first + i, t]) for i, t in enumerate(tokens)]
    other = sum(g > 0 for g in gaps)
    check(max(gaps) <= tie, f"{name}: 16 greedy tokens are those of float32, {other} of them near ties, to {max(gaps):.3f} of {tie:.3f} nats")


def compare(name, config, args):
    since = time.monotonic()
    folder = os.path.join(args.folder, "qwen2-" + name)

    def passed(what):
        nonlocal since
        now = time.monotonic()
        print(f"# {name}: {what}, {now - since:.1f} s", flush=True)
        since = now

    try:
        total = write_checkpoint(folder, config, args.device)
        passed(f"{total / 1e9:.2f} GB written")
        ids = torch.randint(2, 2000, (N_PROMPT,), generator=torch.Generator().manual_seed(3)).tolist()
        card = ["--engine.device", "cuda" if args.device == "cuda" else "cpu"]
        ours = miniinfer(folder, ids, N_GREEDY, card)
        passed("miniinfer")
        whole = ids + ours["output_ids"]
        in32 = miniinfer(folder, ids, N_GREEDY, [*card, "--engine.dtype", "fp32"])
        passed("miniinfer in fp32")
        exact = log_probabilities(folder, whole, torch.float32, args.device)
        passed("transformers in float32")
        theirs = log_probabilities(folder, whole, torch.bfloat16, args.device)
        passed("transformers in bf16")
        spread = float(exact[:N_PROMPT].std(-1).mean())
        mine, mine_max, n = distance(ours, exact)
        other, other_max, _ = distance(ours, exact, theirs)
        check(mine <= FACTOR * other, f"{name}: {n} log probabilities in bf16 are as near float32 as transformers' are",
              f"root mean square {mine:.5f} nats, theirs {other:.5f}; largest {mine_max:.4f}, theirs {other_max:.4f}; "
              f"deviation of a row's logits {spread:.2f}")
        greedy_agrees(name, ours["output_ids"], exact, N_PROMPT - 1, max(NEAR_TIE, 4 * other))
        same = next((i for i, (a, b) in enumerate(zip(in32["output_ids"], ours["output_ids"])) if a != b), N_GREEDY)
        in32["logprobs"] = in32["logprobs"][:same + 1]  # up to there the text before is that of `exact`
        near, near_max, n = distance(in32, exact)
        check(near <= EXACT_LIMIT, f"{name}: in fp32 {n} log probabilities are those of float32",
              f"root mean square {near:.6f} nats, largest {near_max:.6f}")
    except (RuntimeError, subprocess.TimeoutExpired, OSError) as e:
        check(False, f"{name}: it runs", repr(e)[:500])
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--folder")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("1..0 # SKIP no CUDA device")
        return 0
    transformers.utils.logging.disable_progress_bar()
    print(f"# torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    with tempfile.TemporaryDirectory() as own:
        args.folder = args.folder or own
        for name in args.only.split(","):
            config = dict(COMMON, **SHAPES[name])
            if args.layers:
                config.update(num_hidden_layers=args.layers, vocab_size=3000)
            compare(name, config, args)
    print(f"1..{number}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
