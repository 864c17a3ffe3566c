#!/bin/sh
# `quantize` on a small made-up Qwen2: both formats, what it says, going on after a stop, refusals.
. "$MI_SRCDIR/tests/tap.sh"
command -v python3 >/dev/null || skip_all "no python3"
PYTHONPATH="$MI_SRCDIR/tests" PYTHONDONTWRITEBYTECODE=1 python3 - "$MI_SRCDIR/tests/data/checkpoints/qwen2.json" <<-'END' || exit 99
	import checkpoints, json, sys
	checkpoints.write("model", json.load(open(sys.argv[1])))
	open("text", "w").write("Once upon a time there was a little girl who liked to play in the park. " * 40)
	END
py="$MI_SRCDIR/tests/quantize.py"
run="--ids 1,7,40,90,12 -n 1 --engine.dtype fp32 --sampler.chain greedy --json --logprobs 20 --prompt-logprobs"

status 0 "$mi" quantize model -o four --linear int4 --group 32 && grep -q 'four: 14 matrices, mean error 0.0' out && [ ! -d four.quantize ]
check "4 bits, in a folder" $?
status 0 "$mi" inspect four && grep -q 'ct_int4 *14 tensors' out && grep -q 'quant_method = compressed-tensors' out
check "which is read as what it is" $?
status 0 "$mi" run -m four $run && cp out four.json; check "and runs" $?
python3 $py nearest model four 32 >err 2>&1; check "its codes are the nearest" $?
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

# ---- E4M3
status 0 "$mi" quantize model -o numbers --linear fp8 && status 0 "$mi" inspect numbers && grep -q ' fp8 *14 tensors' out &&
	python3 $py e4m3 model numbers >err 2>&1
check "fp8: a number of E4M3 each, the nearest" $?
status 0 "$mi" convert numbers kept --to safetensors && cmp numbers/model.safetensors kept/model.safetensors >err
check "convert keeps that, too" $?
for i in rtn gptq; do # windows enough that some are held back
	status 0 "$mi" quantize model -o n-$i --linear fp8 --method $i --calibrate text --windows 40 --window 16 --json && cp out $i.out || break
done
python3 - <<-'END' >err 2>&1
	import json
	a, b = json.load(open("gptq.out"))["matrices"], json.load(open("rtn.out"))["matrices"]
	assert len(a) == len(b) == 14
	assert all(x["output_error"] < y["output_error"] and x["error"] > y["error"] for x, y in zip(a, b)), (a, b)
	END
check "with gptq, too" $?
for i in model n-rtn n-gptq; do status 0 "$mi" run -m $i $run && cp out $i.json || break; done
python3 - <<-'END' >err 2>&1
	import json
	def off(name):
	    a, b = (json.load(open(n))["prompt_logprobs"] for n in ("model.json", name))
	    return max(abs(x["logprob"] - y["logprob"]) for x, y in zip(a, b))
	print(off("n-rtn.json"), off("n-gptq.json"))
	assert 0 < off("n-rtn.json") < 0.2 and 0 < off("n-gptq.json") < 0.3  # four ids that the text has nothing of
	END
check "both run, and are nearly the model" $?

# ---- the layout of GPTQ
status 0 "$mi" quantize model -o across --linear int4 --group 32 --layout gptq && python3 $py same across four >err 2>&1
check "as GPTQ: the same matrices" $?
status 0 "$mi" inspect across && grep -q ' gptq *14 tensors' out && cmp -s across/quantize_config.json /dev/null; [ $? = 1 ] &&
	status 0 "$mi" run -m across $run && cp out across.json
check "which is read, and runs" $?
ok=0
for how in "int4 --group 64" "int4 --group 64 --asymmetric" "int8 --group 32 --asymmetric" "int8 --group row"; do
	rm -rf x; group=`echo $how | sed 's/.*group //; s/ .*//; s/row/100000/'`
	status 0 "$mi" quantize model -o x --linear $how --layout gptq && python3 $py nearest model x $group >err 2>&1 && status 0 "$mi" run -m x $run || { ok=1; break; }
	rm -rf "x$group"; cp -r x "x$group"
done
check "groups that do not divide a row, zeros, 8 bits: $how" $ok
rm -rf x; status 0 "$mi" convert across x --to safetensors && cmp across/model.safetensors x/model.safetensors >err; check "convert keeps it" $?
python3 - <<-'END' >err 2>&1
	import json
	def values(name):
	    return [t["logprob"] for t in json.load(open(name))["prompt_logprobs"]]
	worst = max(abs(x - y) for x, y in zip(values("four.json"), values("across.json")))
	assert worst < 1e-4, worst
	END
check "it is the same model as the other layout" $?

# ---- awq
cp -r model loud && python3 $py outliers loud
status 0 "$mi" run -m loud $run && cp out loud.json
status 0 "$mi" quantize loud -o awq --linear int4 --group 32 --method awq --calibrate text --windows 2 --json --report awq.svg && cp out awq.out
check "awq" $?
python3 - <<-'END' >err 2>&1
	import json
	all_of = json.load(open("awq.out"))["matrices"]
	print(all_of)
	assert len(all_of) == 14 and all(m["output_error"] < m["rtn_output_error"] * 1.02 for m in all_of)
	assert sum(m["output_error"] for m in all_of) < 0.9 * sum(m["rtn_output_error"] for m in all_of)
	END
check "gives less error" $?
python3 $py folded loud awq >err 2>&1; check "gains, rows of v and up are divided" $?
python3 $py plot awq.svg 7 28 >err 2>&1; check "the plot" $?
"$mi" quantize loud -o loud8 --linear int8 --group 32 --method awq --calibrate text --windows 2 >out 2>err
"$mi" quantize loud -o loud8.gguf --linear int8 --method awq --calibrate text --windows 2 --memory 1 >>out 2>>err
"$mi" quantize loud -o plain8 --linear int8 --group 32 >>out 2>>err
for i in loud8 loud8.gguf plain8; do status 0 "$mi" run -m $i $run --engine.linear reference && cp out $i.json; done
python3 - <<-'END' >err 2>&1
	import json
	def off(name):
	    a, b = (json.load(open(n))["prompt_logprobs"] for n in ("loud.json", name))
	    return max(abs(x["logprob"] - y["logprob"]) for x, y in zip(a, b))
	print(off("loud8.json"), off("loud8.gguf.json"), off("plain8.json"))
	assert max(off("loud8.json"), off("loud8.gguf.json")) < 2 * off("plain8.json") < 0.1
	END
check "it is the same network: 8 bits of it are as close as without" $?

# ---- stopped
python3 -c 'open("long", "w").write(open("text").read() * 30)'
windows=1024 # long enough to be stopped on the way; under sanitizers a quarter of them takes three times as long as that
[ -z "$SAN" ] || windows=256
awq="--linear int4 --group 32 --method awq --calibrate long --windows $windows --window 64"
again="quantize loud -o stopped $awq"
python3 $py interrupt stopped.quantize/job "$mi" $again >out 2>err # sh lets what it starts beside itself ignore the signal
[ $? = 130 ] && [ ! -e stopped ] && [ -f stopped.quantize/job ] && grep -q 'the same command goes on' err; check "Ctrl-C stops it" $?
mkdir stopped.part # what is written last cannot be: all matrices are ready then
refuses 78 'stopped.part' "$mi" $again; rmdir stopped.part
rm "`ls stopped.quantize/*o_proj*.rounded | head -n 1`" stopped.quantize/*layers.1.mlp.up_proj.weight.rounded
status 0 "$mi" $again --json && grep -q '"resumed":12' out && [ ! -e stopped.quantize ]; check "and it goes on with what is there" $?
rm -rf whole; status 0 "$mi" quantize loud -o whole $awq &&
	cmp whole/model.safetensors stopped/model.safetensors >err
check "to the same result" $?

refuses 78 'no multiple of 128; --group 64 divides it' "$mi" quantize model -o x --linear int4; check "a group that does not divide a row" $?
refuses 74 'four exists' "$mi" quantize model -o four --linear int4 --group 32; check "a result that is there" $?
refuses 64 "not one of int4, int8, fp8; did you mean int4" "$mi" quantize model -o x --linear int3; check "3 bits" $?
refuses 64 "has a scale for a row" "$mi" quantize model -o x --linear fp8 --group 32; check "fp8 in groups" $?
refuses 64 "awq is of integers" "$mi" quantize model -o x --linear fp8 --method awq --calibrate text; check "fp8 with awq" $?
refuses 64 "gguf has no such" "$mi" quantize model -o x.gguf --linear fp8; check "fp8 in a GGUF" $?
refuses 64 "fp8 has no zeros" "$mi" quantize model -o x --linear fp8 --asymmetric; check "fp8 with zeros" $?
refuses 64 "not one of rtn, gptq, awq; did you mean awq" "$mi" quantize model -o x --linear int4 --method aqw; check "a method's name" $?
refuses 64 "did you mean gptq" "$mi" quantize model -o x --linear int4 --layout gtpq; check "a layout's name" $?
refuses 64 "is of safetensors" "$mi" quantize model -o x.gguf --linear int4 --layout gptq; check "a layout of a GGUF" $?
refuses 64 "ends in .svg" "$mi" quantize model -o x --linear int4 --group 32 --report x.png; check "a report that is no SVG" $?
refuses 64 "not one of safetensors, gguf" "$mi" quantize model -o x --linear int4 --to onnx; check "a format" $?
refuses 64 "wants --linear" "$mi" quantize model -o x; check "no linear" $?
refuses 64 "wants a text" "$mi" quantize model -o x --linear int4 --method awq; check "awq without a text" $?
rm -rf x; refuses 74 "no-folder" "$mi" quantize model -o x --linear int4 --group 32 --report no-folder/x.svg && [ -d x.quantize ] && rm -rf x.quantize
check "a report that cannot be written" $?
refuses 64 "wants a text" "$mi" quantize model -o x --linear int4 --method gptq; check "gptq without a text" $?
refuses 64 "groups of 32 only" "$mi" quantize model -o x.gguf --linear int4 --group 64; check "a GGUF of other groups" $?
refuses 64 "have no zeros" "$mi" quantize model -o x.gguf --linear int4 --asymmetric; check "a GGUF with zeros" $?
refuses 64 "-o OUT" "$mi" quantize model --linear int4; check "no place for it" $?
if python3 -c 'import transformers, compressed_tensors, torch' 2>/dev/null; then
	python3 - four zeros eight gptq awq numbers n-gptq <<-'END' >err 2>&1
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
if python3 -c 'import gptqmodel, transformers, torch' >/dev/null 2>&1; then
	PYTHONPATH="$MI_SRCDIR/tests" PYTHONDONTWRITEBYTECODE=1 python3 - across x64 x32 x100000 <<-'END' >err 2>&1
	import json, subprocess, os, sys, torch, make_quantised
	ids = [1, 7, 40, 90, 12]
	for name in sys.argv[1:]:
	    with torch.no_grad():
	        want = make_quantised.load(name, "gptq").eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)
	    done = subprocess.run([os.environ["MI_BUILDDIR"] + "/miniinfer", "run", "-m", name, "--ids", "1,7,40,90,12", "-n", "1", "--json",
	                           "--logprobs", "1", "--prompt-logprobs", "--engine.dtype", "fp32", "--engine.linear", "reference"],
	                          capture_output=True, text=True)
	    got = [t["logprob"] for t in json.loads(done.stdout)["prompt_logprobs"]]
	    worst = max(abs(float(want[i, ids[i + 1]]) - got[i]) for i in range(4))
	    assert worst < 0.02, (name, worst)  # it multiplies scales in f16
	END
	check "gptqmodel reads those of its layout" $?
else
	skip "gptqmodel reads those of its layout" "no gptqmodel"
fi
done_testing
