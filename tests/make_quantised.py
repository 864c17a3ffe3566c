"""Writes tests/data/quantised/*.json: what libraries compute from small checkpoints of the layouts that they store quantised.

usage: make_quantised.py [FOLDER]

A Qwen2 of made-up codes, scales, zeros and orders in the layout of GPTQ and AWQ (computed by gptqmodel), compressed-tensors and
FP8 (by transformers).  tests/quantised.py writes the checkpoints themselves, here for the libraries to load, and in the tests for
MiniInfer; only this script needs torch, transformers, gptqmodel and compressed-tensors.  One thread, eager attention, float32:
scales have few bits, so that a library which multiplies them in float16 gets the same weights.
"""
import json
import os
import sys
import tempfile

import safetensors.torch
import torch
import transformers as tf

import make_checkpoints
import quantised

HIDDEN, INNER, HEADS, KV_HEADS, VOCAB = 128, 192, 4, 2, 264
BASE = dict(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=2, num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS, max_position_embeddings=256, rope_theta=1000000.0, bos_token_id=256,
            eos_token_id=257, pad_token_id=None, tie_word_embeddings=False)


def ceil(n, by):
    return -(-n // by)


def tensor(name, dtype, *shape, **filled):
    return dict(name=name, dtype=dtype, shape=list(shape), **filled)


def gptq(name, out, columns, bits, group, order=False, dtype="F16", awq=False):
    per, groups = 32 // bits, 1 if group == -1 else ceil(columns, group)
    step = 1.5 / columns ** 0.5 / 2 ** bits * 3
    parts = [tensor(name + ".qweight", "I32", *((columns, out // per) if awq else (columns // per, out))),
             tensor(name + ".qzeros", "I32", groups, out // per), tensor(name + ".scales", dtype, groups, out, scale=step)]
    if not awq:
        parts.append(tensor(name + ".g_idx", "I32", columns, groups=groups, shuffled=order))
    return parts


def packed(name, out, columns, bits, group, symmetric, dtype="F16"):
    per, groups = 32 // bits, 1 if group == -1 else ceil(columns, group)
    parts = [tensor(name + ".weight_packed", "I32", out, ceil(columns, per)),
             tensor(name + ".weight_scale", dtype, out, groups, scale=1.5 / columns ** 0.5 / 2 ** bits * 3),
             tensor(name + ".weight_shape", "I64", 2, values=[out, columns])]
    if not symmetric:
        parts.append(tensor(name + ".weight_zero_point", "I32", ceil(out, per), groups))
    return parts


def integers(name, out, columns, symmetric):
    parts = [tensor(name + ".weight", "I8", out, columns),
             tensor(name + ".weight_scale", "F32", out, 1, scale=1.5 / columns ** 0.5 / 256 * 3)]
    return parts if symmetric else parts + [tensor(name + ".weight_zero_point", "I8", out, 1)]


def fp8(name, out, columns, scales, suffix="weight_scale"):
    return [tensor(name + ".weight", "F8_E4M3", out, columns),
            tensor(f"{name}.{suffix}", "F32", *scales, scale=1.5 / columns ** 0.5 / 90)]


def gptq_config(bits, group, act, form, sym=False):
    return dict(quant_method="gptq", bits=bits, group_size=group, desc_act=act, sym=sym, checkpoint_format=form, lm_head=False,
                pack_dtype="int32", meta=dict(quantizer=["gptqmodel:7.7.0"]))


def ct_config(form, bits, strategy, symmetric, group=None, kind="int", **more):
    return dict(quant_method="compressed-tensors", format=form, quantization_status="compressed", ignore=["lm_head"],
                config_groups=dict(group_0=dict(targets=["Linear"], input_activations=None, output_activations=None,
                                                weights=dict(num_bits=bits, type=kind, strategy=strategy, symmetric=symmetric,
                                                             group_size=group, **more))))


CASES = {
    "gptq_4": (gptq_config(4, 32, False, "gptq"), lambda n, o, i: gptq(n, o, i, 4, 32)),
    "gptq_4_act_order": (gptq_config(4, 64, True, "gptq"), lambda n, o, i: gptq(n, o, i, 4, 64, True)),
    "gptq_4_v2": (gptq_config(4, 64, False, "gptq_v2"), lambda n, o, i: gptq(n, o, i, 4, 64)),
    "gptq_8_v2": (gptq_config(8, -1, False, "gptq_v2"), lambda n, o, i: gptq(n, o, i, 8, -1)),
    "awq": (dict(quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm"),
            lambda n, o, i: gptq(n, o, i, 4, 32, awq=True)),
    "tensors_int4": (ct_config("pack-quantized", 4, "group", True, 32), lambda n, o, i: packed(n, o, i, 4, 32, True)),
    "tensors_int4_zeros": (ct_config("pack-quantized", 4, "group", False, 64),
                           lambda n, o, i: packed(n, o, i, 4, 64, False, "BF16")),
    "tensors_int8_packed": (ct_config("pack-quantized", 8, "channel", True), lambda n, o, i: packed(n, o, i, 8, -1, True)),
    "tensors_int8": (ct_config("int-quantized", 8, "channel", True), lambda n, o, i: integers(n, o, i, True)),
    "tensors_int8_zeros": (ct_config("int-quantized", 8, "channel", False), lambda n, o, i: integers(n, o, i, False)),
    "tensors_fp8_rows": (ct_config("float-quantized", 8, "channel", True, kind="float"),
                         lambda n, o, i: fp8(n, o, i, [o, 1])),
    "tensors_fp8_matrix": (ct_config("float-quantized", 8, "tensor", True, kind="float"), lambda n, o, i: fp8(n, o, i, [1])),
    "fp8_blocks": (dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128],
                        modules_to_not_convert=["lm_head"]),
                   lambda n, o, i: fp8(n, o, i, [ceil(o, 128), ceil(i, 128)], "weight_scale_inv")),
}


def tensors(quantise, inner):
    def plain(name, *shape):
        mean, deviation = make_checkpoints.spread(name, shape)
        return tensor(name, "F32", *shape, mean=mean, deviation=deviation)

    all_of = [plain("model.embed_tokens.weight", VOCAB, HIDDEN), plain("model.norm.weight", HIDDEN),
              plain("lm_head.weight", VOCAB, HIDDEN)]
    kv = HIDDEN // HEADS * KV_HEADS
    for i in range(BASE["num_hidden_layers"]):
        at = f"model.layers.{i}."
        all_of += [plain(at + "input_layernorm.weight", HIDDEN), plain(at + "post_attention_layernorm.weight", HIDDEN)]
        for part, out, columns in (("self_attn.q_proj", HIDDEN, HIDDEN), ("self_attn.k_proj", kv, HIDDEN),
                                   ("self_attn.v_proj", kv, HIDDEN), ("self_attn.o_proj", HIDDEN, HIDDEN),
                                   ("mlp.gate_proj", inner, HIDDEN), ("mlp.up_proj", inner, HIDDEN),
                                   ("mlp.down_proj", HIDDEN, inner)):
            all_of += quantise(at + part, out, columns)
            if part[-6:] in ("q_proj", "k_proj", "v_proj"):
                all_of.append(plain(at + part + ".bias", out))
    return all_of


def matrices(folder):
    """What gptqmodel multiplies with, by name: each of its modules is fed the unit vectors, in float16."""
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        method = json.load(f)["quantization_config"]["quant_method"]
    backend = BACKEND.GPTQ_TORCH if method == "gptq" else BACKEND.AWQ_TORCH
    model = GPTQModel.load(folder, device="cpu", backend=backend, dtype=torch.float16, attn_implementation="eager").model
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseQuantLinear):
            module.bias = None
            found[name + ".weight"] = module(torch.eye(module.in_features, dtype=torch.float16)).T.float()
    return found


@torch.no_grad()
def load(folder, method):
    if method in ("gptq", "awq"):
        weights = matrices(folder)
        weights.update((name, t) for name, t in safetensors.torch.load_file(os.path.join(folder, "model.safetensors")).items()
                       if t.dtype == torch.float32)
        config = tf.AutoConfig.from_pretrained(folder)
        del config.quantization_config
        model = tf.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        model.load_state_dict(weights)
        return model
    config = tf.FineGrainedFP8Config(dequantize=True) if method == "fp8" else tf.CompressedTensorsConfig(run_compressed=False)
    return tf.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32,
                                                   quantization_config=config)


def make(name):
    quantisation, quantise = CASES[name]
    inner = 256 if name == "fp8_blocks" else INNER  # transformers halves what is no multiple of its block; the layout does not
    config = tf.Qwen2Config(**dict(BASE, intermediate_size=inner))
    config.architectures = ["Qwen2ForCausalLM"]
    config = json.loads(config.to_json_string())
    config["quantization_config"] = quantisation
    spec = dict(config=config, tensors=tensors(quantise, inner), prompts=[])
    with tempfile.TemporaryDirectory() as folder:
        quantised.write(folder, spec)
        model = load(folder, quantisation["quant_method"])
        model.eval()
        generator = torch.Generator().manual_seed(1)
        for n in make_checkpoints.PROMPTS:
            ids = torch.randint(0, 256, (n,), generator=generator).tolist()
            spec["prompts"].append(make_checkpoints.expected(model, ids))
    spec["library"] = {"gptq": "gptqmodel", "awq": "gptqmodel"}.get(quantisation["quant_method"], "transformers")
    return spec


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "data", "quantised")
    os.makedirs(folder, exist_ok=True)
    torch.set_num_threads(1)
    for name in sys.argv[2:] or CASES:
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(make(name), f, separators=(",", ":"))
            f.write("\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
