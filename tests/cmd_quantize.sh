#!/bin/sh
# `quantize` on a small made-up Qwen2: both formats, what it says, going on after a stop, refusals.
. "$MI_SRCDIR/tests/tap.sh"
command -v python3 >/dev/null || skip_all "no python3"
PYTHONPATH="$MI_SRCDIR/tests" PYTHONDONTWRITEBYTECODE=1 python3 - "$MI_SRCDIR/tests/data/checkpoints/qwen2.json" <<-'END' || exit 99
	import checkpoints, json, sys
	checkpoints.write("model", json.load(open(sys.argv[1])))
	open("text", "w").write("Once upon a time there was a little girl who liked to play in the park. " * 40)
	END
run="--ids 1,7,40,90,12 -n 1 --engine.dtype fp32 --sampler.chain greedy --json --logprobs 20 --prompt-logprobs"

status 0 "$mi" quantize model -o four --linear int4 --group 32 && grep -q 'four: 14 matrices, mean error 0.0' out && [ ! -d four.quantize ]
check "4 bits, in a folder" $?
status 0 "$mi" inspect four && grep -q 'ct_int4 *14 tensors' out && grep -q 'quant_method = compressed-tensors' out
check "which is read as what it is" $?
status 0 "$mi" run -m four $run && cp out four.json; check "and runs" $?
status 0 "$mi" quantize model -o eight --linear int8 --json && grep -q '"bits":8,"group":0' out; check "8 bits, --json" $?
status 0 "$mi" quantize model -o zeros --linear int4 --group 32 --asymmetric && status 0 "$mi" run -m zeros $run; check "with zeros" $?
status 0 "$mi" quantize model -o four.gguf --linear int4 && status 0 "$mi" inspect four.gguf && grep -q 'q4_0 *14 tensors' out
check "4 bits in a GGUF" $?
status 0 "$mi" run -m four.gguf $run && cp out gguf.json; check "which runs" $?
status 0 "$mi" quantize model -o eight.gguf --linear int8 && status 0 "$mi" inspect eight.gguf && grep -q 'q8_0 *14 tensors' out
check "8 bits in a GGUF" $?
status 0 "$mi" convert four again --to safetensors && status 0 "$mi" run -m again $run && cp out again.json; check "convert keeps it" $?
python3 - <<-'END' >err 2>&1
	import json
	def values(name):
	    o = json.load(open(name))
	    return [t["logprob"] for t in o["prompt_logprobs"]], dict(o["logprobs"][0]["top"])
	(a, ta), (b, tb), (c, tc) = values("four.json"), values("gguf.json"), values("again.json")
	assert a == c and ta == tc
	# The same codes and scales; the GGUF's norms and biases are the same, its embedding too.
	worst = max(abs(x - y) for x, y in zip(a, b))
	assert worst < 1e-4, worst
	END
check "both are one model" $?

mkdir gptq.part
refuses 78 'gptq.part' "$mi" quantize model -o gptq --linear int4 --group 32 --method gptq --calibrate text --windows 2
check "a place that is taken, found at the end" $?
rmdir gptq.part
[ -d gptq.quantize ]; check "what was ready is kept" $?
refuses 78 'of another model or other settings' "$mi" quantize model -o gptq --linear int4 --group 32 --asymmetric; check "but not for other settings" $?
status 0 "$mi" quantize model -o gptq --linear int4 --group 32 --method gptq --calibrate text --windows 2 --json &&
	grep -q '"resumed":14' out && cp out gptq.out && [ ! -d gptq.quantize ]
check "and taken by the same command" $?
status 0 "$mi" quantize model -o rtn --linear int4 --group 32 --calibrate text --windows 2 --memory 1 --json && cp out rtn.out
check "to the nearest, with the error of outputs" $?
python3 - <<-'END' >err 2>&1
	import json
	a, b = json.load(open("gptq.out"))["matrices"], json.load(open("rtn.out"))["matrices"]
	assert len(a) == len(b) == 14
	assert all(x["output_error"] < 0.9 * y["output_error"] and x["error"] > y["error"] for x, y in zip(a, b)), (a, b)
	END
check "gptq: each matrix gives less error" $?
status 0 "$mi" run -m gptq $run; check "and the result runs" $?

refuses 78 'no multiple of 128; --group 64 divides it' "$mi" quantize model -o x --linear int4; check "a group that does not divide a row" $?
refuses 74 'four exists' "$mi" quantize model -o four --linear int4 --group 32; check "a result that is there" $?
refuses 64 "int4 and int8 are possible" "$mi" quantize model -o x --linear int3; check "3 bits" $?
refuses 64 "wants a text" "$mi" quantize model -o x --linear int4 --method gptq; check "gptq without a text" $?
refuses 64 "groups of 32 only" "$mi" quantize model -o x.gguf --linear int4 --group 64; check "a GGUF of other groups" $?
refuses 64 "have no zeros" "$mi" quantize model -o x.gguf --linear int4 --asymmetric; check "a GGUF with zeros" $?
refuses 64 "-o OUT" "$mi" quantize model --linear int4; check "no place for it" $?
if python3 -c 'import transformers, compressed_tensors, torch' 2>/dev/null; then
	python3 - four zeros eight gptq <<-'END' >err 2>&1
	import json, subprocess, os, sys, torch, transformers as tf
	ids = [1, 7, 40, 90, 12]
	for name in sys.argv[1:]:
	    config = tf.CompressedTensorsConfig(run_compressed=False)
	    m = tf.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="eager", quantization_config=config)
	    with torch.no_grad():
	        want = m(torch.tensor([ids])).logits[0].double().log_softmax(-1)
	    done = subprocess.run([os.environ["MI_BUILDDIR"] + "/miniinfer", "run", "-m", name, "--ids", "1,7,40,90,12", "-n", "1", "--json",
	                           "--logprobs", "1", "--prompt-logprobs", "--engine.dtype", "fp32"], capture_output=True, text=True)
	    got = [t["logprob"] for t in json.loads(done.stdout)["prompt_logprobs"]]
	    worst = max(abs(float(want[i, ids[i + 1]]) - got[i]) for i in range(4))
	    assert worst < 0.02, (name, worst)  # it multiplies scales in f16
	END
	check "transformers reads them" $?
else
	skip "transformers reads them" "no transformers with compressed-tensors"
fi
done_testing
