#!/usr/bin/env python3
"""What a GGUF file holds, as the PyPI package gguf reads it, under Hugging Face's
names: the text that test_gguf.c compares with.  Usage: gguf_dump.py FILE > FILE.dump

The names are spelled out here a second time on purpose: this is the other side
of the comparison."""
import hashlib
import sys
import numpy as np
from gguf import GGUFReader, quants

LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def canonical(name):
    p = name.split(".")
    if p[0] == "blk":
        return f"model.layers.{p[1]}.{LAYER[p[2]]}.{p[3]}"
    return f"{TOP[p[0]]}.{p[1]}"


def sha(data):
    return hashlib.sha256(data).hexdigest()[:16]


def byte_letters():
    own = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [b for b in range(256) if b not in own]
    return {chr(b): b for b in own} | {chr(256 + i): b for i, b in enumerate(rest)}


r = GGUFReader(sys.argv[1])
for t in r.tensors:
    x = quants.dequantize(t.data, t.tensor_type).astype("<f4")
    shape = "x".join(str(int(d)) for d in reversed(t.shape))
    x = np.ascontiguousarray(x).reshape(-1)[:1 << 18]  # enough; SHA-256 of all takes GLib 20 s
    print("weight", canonical(t.name), t.tensor_type.name.lower(), shape, sha(x.tobytes()))


def value(key, default=None):
    f = r.get_field(key)
    return default if f is None else f.contents()


arch = value("general.architecture")
for key, name in [("block_count", "num_hidden_layers"), ("embedding_length", "hidden_size"),
                  ("feed_forward_length", "intermediate_size"), ("attention.head_count", "num_attention_heads"),
                  ("attention.head_count_kv", "num_key_value_heads"), ("context_length", "max_position_embeddings")]:
    print("meta", name, value(f"{arch}.{key}"))
print("meta rms_norm_eps %.6g" % value(f"{arch}.attention.layer_norm_rms_epsilon"))
print("meta rope_theta %.6g" % value(f"{arch}.rope.freq_base", 10000))
print("meta tie_word_embeddings", "false" if any(t.name == "output.weight" for t in r.tensors) else "true")

model, kinds = value("tokenizer.ggml.model"), value("tokenizer.ggml.token_type")
f = r.fields["tokenizer.ggml.tokens"]
raw = [bytes(f.parts[i]) for i in f.data]
letters, pieces = byte_letters(), hashlib.sha256()
for text, kind in zip(raw, kinds):
    if kind == 5:
        text = b"(gap)"
    elif model == "gpt2" and kind == 1:
        text = bytes(letters[c] for c in text.decode())
    pieces.update(b"%d %d " % (len(text), kind) + text)
print("pieces", len(raw), pieces.hexdigest()[:16])
ids = {}
for i, text in enumerate(raw):
    ids.setdefault(text, i)
if f := r.get_field("tokenizer.ggml.merges"):
    pairs = [bytes(f.parts[i]).split(b" ") for i in f.data]
    print("merges", len(pairs), sha(np.array([[ids[a], ids[b]] for a, b in pairs], "<i4").tobytes()))
if f := r.get_field("tokenizer.ggml.scores"):
    print("scores", sha(np.array(f.contents(), "<f4").tobytes()))
for name in "bos", "eos", "padding", "unknown":
    i = value(f"tokenizer.ggml.{name}_token_id", -1)
    print("id", name, -1 if i == 0xffffffff else i)
print("template", sha((value("tokenizer.chat_template") or "").encode()))
