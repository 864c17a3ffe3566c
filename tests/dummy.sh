#!/bin/sh
# [model] load = dummy: models of random weights out of a config.json alone.
. "$MI_SRCDIR/tests/tap.sh"
"$mi" inspect format:dummy >/dev/null 2>&1 || skip_all "built without jansson"
flags="--model.load dummy --sampler.chain greedy"

config() { # architecture, further members
	printf '{"architectures": ["%s"], "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96,
		"vocab_size": 300, "max_position_embeddings": 512%s}\n' "$1" "$2"
}
for case in 'LlamaForCausalLM' 'MistralForCausalLM' 'Qwen2ForCausalLM ,"num_key_value_heads":2' \
	'Qwen3ForCausalLM ,"num_key_value_heads":2,"head_dim":32,"tie_word_embeddings":true' 'GPTNeoXForCausalLM' \
	'LlamaForCausalLM ,"attention_bias":true,"mlp_bias":true'; do
	set -- $case
	config "$@" >one.json
	mkdir -p dir && cp one.json dir/config.json
	status 0 "$mi" run -m one.json $flags --ids 1,2,3 -n 8 --json && sed 's/.*"output_ids":\([^]]*\).*/\1/' out >ids && [ "`tr , '\n' <ids | wc -l`" = 8 ] &&
		status 0 "$mi" run -m dir $flags --ids 1,2,3 -n 8 --json && sed 's/.*"output_ids":\([^]]*\).*/\1/' out | cmp -s - ids
	check "$case: as a file and as a directory the same answer" $?
done
status 0 "$mi" run -m dir $flags --ids 1,2,3 -n 8 --json --engine.dtype fp32 && sed 's/.*"output_ids":\([^]]*\).*/\1/' out | cmp -s - ids
check "the reference reads the same weights" $?
status 0 "$mi" run -m dir $flags --ids 1,2,3 -n 8 --json --format.dummy.pattern_mb 0; check "weights of their own" $?
status 0 "$mi" plan -m "$MI_SRCDIR/bench/shapes/qwen2-7b.json" --model.load dummy --json && grep -q '"mapped":1523[0-9]*}' out
check "a 7B model is planned" $?
for f in q4_1 q8_0 iq4_nl; do
	status 0 "$mi" verify -m dir $flags --ids 1,2,3 -n 4 --format.dummy.stored $f && grep -q '^nodes: 0 of ' out; check "matrices stored as $f" $?
done
refuses 65 'rows of 64, no multiple of 256: no q4_k' "$mi" plan -m dir $flags --format.dummy.stored q4_k; check "rows that are no whole blocks" $?
refuses 65 'tokenizer' "$mi" run -m dir $flags --raw -p x; check "text without a tokenizer" $?

config Qwen2ForCausalLM | sed 's/"hidden_size": 64,//' >bad.json
refuses 65 "bad.json: it does not say 'hidden_size'" "$mi" plan -m bad.json $flags; check "a size is missing" $?
config Qwen2ForCausalLM | sed 's/"vocab_size": 300/"vocab_size": -1/' >bad.json
refuses 65 "'vocab_size' is '-1'" "$mi" plan -m bad.json $flags; check "a size that is none" $?
config Qwen2ForCausalLM | sed 's/300/16777216/; s/: 64/: 1048576/; s/: 2/: 1024/; s/: 96/: 16777216/' >bad.json
refuses 65 "more than 4096 GB" "$mi" plan -m bad.json $flags; check "sizes beyond all reason" $?
config ZebraForCausalLM >bad.json
refuses 78 "ZebraForCausalLM.*these are: Llama" "$mi" plan -m bad.json $flags; check "an architecture that it does not know" $?
echo '[1]' >bad.json
refuses 65 'no JSON object' "$mi" plan -m bad.json $flags; check "no configuration" $?
refuses 78 'did you mean dummy?' "$mi" plan -m one.json --model.load dumy; check "a slip" $?
done_testing
