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
