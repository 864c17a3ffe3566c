#!/bin/sh
# What is wrong on a card: kernels with a planted mistake, a device that is lost, a model that does not fit.
. "$MI_SRCDIR/tests/tap.sh"
wrong="$MI_BUILDDIR/tests/plugins/wrong_cuda.so" lost="$MI_BUILDDIR/tests/plugins/lost_cuda.so"
[ -e "$wrong" ] || skip_all "built without CUDA"
"$mi" inspect format:safetensors >/dev/null 2>&1 || skip_all "built without jansson"
"$MI_BUILDDIR/tests/tiny_model" tiny silu gate || skip_all "no tiny model"
"$mi" run -m tiny --ids 3 -n 1 --engine.device ${MI_TEST_DEVICE:=cuda} >/dev/null 2>err || { grep -q '0 usable cuda devices' err && skip_all "no CUDA device"; }
mkdir wrong lost && cp "$wrong" wrong && cp "$lost" lost
cat >wide.json <<-'END'
{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 896,
 "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 5000,
 "tie_word_embeddings": true, "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
 "max_position_embeddings": 32768}
END
sed 's/"num_hidden_layers": 2, "hidden_size": 896/"num_hidden_layers": 28, "hidden_size": 3584/; s/heads": 14/heads": 28/; s/heads": 2,/heads": 4,/
	s/4864/18944/; s/"vocab_size": 5000/"vocab_size": 152064/; s/embeddings": true/embeddings": false/' wide.json >large.json
card="--engine.device $MI_TEST_DEVICE"
ids="--ids 3,14,15,92,65"
# So that the sum is left to who asks for it.
plain="--plugins.disable fusion_decode_cuda,fusion_layer_cuda,fusion_prefill_cuda,fusion_gated_cpu"

# ---- a wrong kernel: one column of 48, and one of 4864
for dtype in bf16 fp16; do
	for model in "-m tiny" "-m wide.json --model.load dummy"; do
		flags="$model $ids $card $plain --engine.dtype $dtype --against cpu -n 4"
		status 0 "$mi" verify $flags && grep -q '^nodes: 0 of' out; check "$dtype, ${model%% --*}: without the wrong kernel all is right" $?
		status 1 "$mi" verify $flags --plugin-path "$PWD/wrong" &&
			[ "`grep -c '^WRONG .* fusion:acme.gated@cuda  *wrong_cuda.so  *model.layers.[01]: silu + mul$' out`" = 2 ] &&
			[ "`grep -c '^WRONG\|^CACHE\|^NODES' out`" = 2 ] &&
			grep -q '^first: model.layers.0: silu + mul, by fusion:acme.gated@cuda of wrong_cuda.so, in a step of ' out
		check "$dtype, ${model%% --*}: it is found, and nothing else; node and plugin are named" $?
	done
done

# ---- a device that is lost while a request runs
# A line, status 69; standard output may have the beginning of an answer.
ends() { # words, command...
	tap_words=$1; shift
	status 69 timeout 120 "$@" && [ "`wc -l <err`" = 1 ] && grep -q "^miniinfer: .*$tap_words" err
}

flags="-m tiny $card $plain --plugin-path $PWD/lost --engine.dtype bf16 --sampler.chain greedy"
status 0 "$mi" run $flags $ids -n 30 --ignore-eos; check "before that the kernel is right" $?
for graphs in true false; do
	ends 'illegal memory access' "$mi" run $flags $ids -n 80 --ignore-eos --engine.graphs $graphs
	check "run ends with status 69 and the reason, graphs = $graphs" $?
done
ends 'illegal memory access' "$mi" verify $flags $ids --against cpu -n 0 --steps 60; check "so does verify" $?
ends 'illegal memory access' "$mi" bench decode $flags -m wide.json --model.load dummy --context 64 --rounds 1; check "so does bench" $?
if "$mi" inspect frontend:batch >/dev/null 2>&1; then
	i=0
	while [ $i -lt 24 ]; do
		i=`expr $i + 1`
		echo "{\"ids\": [3, 14, $i], \"ignore_eos\": true, \"max_tokens\": `[ $i -lt 9 ] && echo 8 || echo 70`}"
	done >in
	ends 'stopped after [0-9]* answers.*illegal memory access' "$mi" batch in -o part $flags --batch-size 4
	check "so does batch" $?
	have=`wc -l <part`
	[ "$have" -ge 4 ] && [ "$have" -le 8 ] && grep -q "stopped after $have answers" err; check "which keeps what was answered" $?
	status 0 "$mi" batch in -o part -m tiny $card $plain --engine.dtype bf16 --sampler.chain greedy --batch-size 4 && [ "`wc -l <part`" = 24 ]
	check "and goes on from there without that kernel" $?
else
	skip "so does batch" "built without jansson"
fi

# ---- a model that does not fit
refuses 71 'the model needs [0-9.]*.*B on device .* where [0-9.]*.*B of [0-9.]*.*B are free; lower \[engine\] max_len or max_seqs' \
	timeout 60 "$mi" run -m large.json --model.load dummy $card $ids -n 1 --engine.max_len 32768 --engine.max_seqs 128 --engine.cache batch
check "too long a cache is refused with bytes wanted, bytes free and what to change" $?
sed 's/^/# /' err
done_testing
