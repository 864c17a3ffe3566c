#!/usr/bin/env python3
"""Causal prefill attention as PyTorch runs it, cuDNN and FlashAttention 2: TFLOP/s of
tests/gpu_attention's shapes (2 * n * n * heads * dim)."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def measure(backend, heads, kv_heads, dim, n):
    q = torch.randn(1, heads, n, dim, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, kv_heads, n, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best = float("inf")
    with sdpa_kernel(backend):
        for _ in range(8):
            begin.record()
            for _ in range(4):
                F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            end.record()
            end.synchronize()
            best = min(best, begin.elapsed_time(end) / 4)
    return 2.0 * n * n * heads * dim / best * 1e-9


def main():
    for n in 2048, 8192:
        for heads, kv_heads, dim in (14, 2, 64), (12, 2, 128), (28, 4, 128):
            for name, backend in ("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash2", SDPBackend.FLASH_ATTENTION):
                try:
                    rate = f"{measure(backend, heads, kv_heads, dim, n):4.0f} TFLOP/s"
                except RuntimeError as e:
                    rate = f"refused: {str(e).splitlines()[0]}"
                print(f"prefill {name:6} {heads}/{kv_heads} x {dim:3}, {n}: {rate}", flush=True)


main()
