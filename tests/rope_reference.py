#!/usr/bin/env python3
"""Writes rope_reference.txt: frequencies as transformers computes them.

    python3 rope_reference.py > rope_reference.txt        (transformers 5.23, torch)

A line: keys of a configuration as key=value (head_dim; seq_len: the length that a dynamic
scaling is computed for), a bar, the magnitude, the frequencies in radians a position.
"""
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

CASES = [
    dict(rope_type="default", rope_theta=10000.0),
    dict(rope_type="default", rope_theta=1000000.0, partial_rotary_factor=0.25),
    dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
    dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0, seq_len=1000),
    dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0, seq_len=8192),
    dict(rope_type="dynamic", rope_theta=500000.0, factor=8.0, seq_len=100000),
    dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
         original_max_position_embeddings=8192),
    dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
         original_max_position_embeddings=512),
    dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768),
    dict(rope_type="yarn", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=4096, beta_fast=48.0,
         beta_slow=2.0),
    dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, original_max_position_embeddings=4096, mscale=1.0,
         mscale_all_dim=0.8),
    dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=1024,
         attention_factor=1.25),
    dict(rope_type="yarn", rope_theta=10000.0, factor=2.0, original_max_position_embeddings=8),
]

for head_dim in (32, 80):
    for case in CASES:
        rope = dict(case)
        seq_len = rope.pop("seq_len", None)
        config = LlamaConfig(hidden_size=head_dim * 4, num_attention_heads=4, max_position_embeddings=4096,
                             rope_parameters=dict(rope))
        dim = int(head_dim * rope.get("partial_rotary_factor", 1))
        if rope["rope_type"] == "default":
            freqs, magnitude = [rope["rope_theta"] ** (-2 * i / dim) for i in range(dim // 2)], 1.0
        else:
            freqs, magnitude = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", seq_len=seq_len)
        keys = dict(case, head_dim=head_dim, max_position_embeddings=4096)
        print(*(f"{k}={v}" for k, v in keys.items()), "|", f"{magnitude:.9g}", *(f"{float(f):.9g}" for f in freqs))
