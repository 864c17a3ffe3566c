"""Writes tests/data/checkpoints/*.json: what `transformers` computes from small checkpoints with made-up weights.

usage: make_checkpoints.py [FOLDER]

They hold what the models of the reference data do not: GPT-NeoX (parallel residual or not, partial rotary), a sliding window
shorter than the prompt, the rotary scalings, norms of q and k, biases, tied and separate heads.  tests/checkpoints.py writes
the checkpoints themselves, here for `transformers` to load, and in the tests for MiniInfer; only this script needs torch and
transformers (pip install torch transformers).  Everything is float32, one thread, eager attention.
"""
import json
import os
import sys
import tempfile

import torch
import transformers as tf

import checkpoints

VOCAB, PROMPTS, GREEDY = 264, (1, 7, 40, 90), 16
BASE = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=256, bos_token_id=256, eos_token_id=257, pad_token_id=None)
GQA = dict(BASE, num_key_value_heads=2)

CHECKPOINTS = {
    "llama": (tf.LlamaConfig, dict(GQA, rms_norm_eps=1e-5)),
    "llama_tied_heads": (tf.LlamaConfig, dict(GQA, num_key_value_heads=1, head_dim=32, tie_word_embeddings=True)),
    "llama3_scaling": (tf.LlamaConfig, dict(GQA, rope_theta=500000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    "llama_linear_scaling": (tf.LlamaConfig, dict(GQA, rope_scaling=dict(rope_type="linear", factor=4.0))),
    "llama_yarn_scaling": (tf.LlamaConfig, dict(GQA, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=64))),
    "llama_biased": (tf.LlamaConfig, dict(GQA, attention_bias=True, mlp_bias=True)),
    "mistral_window": (tf.MistralConfig, dict(GQA, sliding_window=16)),
    "qwen2": (tf.Qwen2Config, dict(GQA, rope_theta=1000000.0)),
    "qwen2_tied": (tf.Qwen2Config, dict(GQA, tie_word_embeddings=True)),
    "qwen3": (tf.Qwen3Config, dict(GQA, head_dim=32, rope_theta=1000000.0)),
    "gpt_neox": (tf.GPTNeoXConfig, dict(BASE, rotary_pct=0.25, use_parallel_residual=True, hidden_act="gelu")),
    "gpt_neox_sequential": (tf.GPTNeoXConfig, dict(BASE, rotary_pct=1.0, use_parallel_residual=False,
                                                   hidden_act="gelu_new", attention_bias=False)),
}


def spread(name, shape):
    """Mean and deviation, large enough that every part matters: as models are initialised attention is nearly uniform, a
    norm's weight one, a bias zero."""
    if "norm" in name and name.endswith("weight"):
        return 1.0, 0.2
    if name.endswith("bias"):
        return 0.0, 0.2
    return (0.0, 1.0) if "embed" in name else (0.0, 1.5 / shape[-1] ** 0.5)


@torch.no_grad()
def expected(model, ids):
    logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    top = logprobs[-1].topk(20)
    answer, gaps, sequence = [], [], list(ids)
    for _ in range(GREEDY):
        # From the start each time: the library's own cache is one more thing that could be wrong.
        best = model(torch.tensor([sequence])).logits[0, -1].double().topk(2)
        answer.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 6))
        sequence.append(answer[-1])
    return dict(ids=ids, prompt_logprobs=[round(float(logprobs[i, ids[i + 1]]), 6) for i in range(len(ids) - 1)],
                top20=[[int(i), round(float(p), 6)] for i, p in zip(top.indices, top.values)], greedy=answer,
                greedy_gap=gaps)


def make(name):
    config_class, settings = CHECKPOINTS[name]
    config = config_class(**settings)
    config.architectures = [tf.AutoModelForCausalLM._model_mapping[config_class].__name__]
    with torch.device("meta"):
        empty = tf.AutoModelForCausalLM.from_config(config)
    # In files GPT-NeoX calls its head embed_out, whatever the library does.
    head = "embed_out.weight" if name.startswith("gpt_neox") else "lm_head.weight"
    tensors = [[head if key == "lm_head.weight" else key, list(t.shape), *spread(key, t.shape)]
               for key, t in empty.state_dict().items()
               if not (key == "lm_head.weight" and config.tie_word_embeddings)]
    spec = dict(config=json.loads(config.to_json_string()), tensors=tensors, prompts=[],
                made_with=f"transformers {tf.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.write(folder, spec)
        model, loading = tf.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
        model.eval()
        if loading["missing_keys"] or loading["unexpected_keys"]:
            sys.exit(f"{name}: the library reads other tensors than were written: {loading}")
        generator = torch.Generator().manual_seed(1)
        for n in PROMPTS:
            spec["prompts"].append(expected(model, torch.randint(0, 256, (n,), generator=generator).tolist()))
    return spec


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "data", "checkpoints")
    os.makedirs(folder, exist_ok=True)
    torch.set_num_threads(1)
    for name in CHECKPOINTS:
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(make(name), f, separators=(",", ":"))
            f.write("\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
