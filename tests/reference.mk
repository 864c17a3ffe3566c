test_scripts += tests/checkpoints.sh tests/reference.sh
EXTRA_DIST   += tests/checkpoints.py tests/make_checkpoints.py tests/reference.py \
	tests/data/checkpoints/gpt_neox.json \
	tests/data/checkpoints/gpt_neox_sequential.json \
	tests/data/checkpoints/llama.json \
	tests/data/checkpoints/llama3_scaling.json \
	tests/data/checkpoints/llama_biased.json \
	tests/data/checkpoints/llama_linear_scaling.json \
	tests/data/checkpoints/llama_tied_heads.json \
	tests/data/checkpoints/llama_yarn_scaling.json \
	tests/data/checkpoints/mistral_window.json \
	tests/data/checkpoints/qwen2.json \
	tests/data/checkpoints/qwen2_tied.json \
	tests/data/checkpoints/qwen3.json
test_scripts += tests/quantised.sh
EXTRA_DIST   += tests/quantised.py tests/make_quantised.py \
	tests/data/quantised/awq.json \
	tests/data/quantised/fp8_blocks.json \
	tests/data/quantised/gptq_4.json \
	tests/data/quantised/gptq_4_act_order.json \
	tests/data/quantised/gptq_4_v2.json \
	tests/data/quantised/gptq_8_v2.json \
	tests/data/quantised/tensors_fp8_matrix.json \
	tests/data/quantised/tensors_fp8_rows.json \
	tests/data/quantised/tensors_int4.json \
	tests/data/quantised/tensors_int4_zeros.json \
	tests/data/quantised/tensors_int8.json \
	tests/data/quantised/tensors_int8_packed.json \
	tests/data/quantised/tensors_int8_zeros.json
