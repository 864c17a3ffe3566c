#!/bin/sh
# Whatever the scheduler, the chunks of prompts and who loses its place: each request gets the tokens it gets alone.
. "$MI_SRCDIR/tests/tap.sh"
m=$data/models/stories260K.gguf
[ -r "$m" ] || m=$models/stories260K.gguf
[ -r "$m" ] || skip_all "no stories260K.gguf; MI_DATA or MI_MODELS says where it is"
"$mi" inspect frontend:batch >/dev/null 2>&1 || skip_all "built without jansson"
flags="--model.path $m --engine.dtype fp32 --raw --sampler.chain temperature,top_k,multinomial --engine.max_len 128"

i=0
for start in "Once upon a time" Lily "The park was" "Tom and his dog went to the river because" "One day" "A red ball"; do
	for client in ann bob ann; do
		i=`expr $i + 1`
		echo "{\"prompt\": \"$start\", \"id\": $i, \"seed\": $i, \"client\": \"$client\", \"priority\": `expr $i % 3`, \"max_tokens\": `expr 5 + $i \* 7 % 40`, \"temperature\": `expr $i % 2`}"
	done
done >in
status 0 "$mi" batch in -o alone $flags --engine.max_seqs 1 && [ "`wc -l <alone`" = 18 ]
check "each alone" $?
sort alone >want

same() { # name, options
	name=$1; shift
	rm -f got
	status 0 "$mi" batch in -o got $flags "$@" && sort got | cmp -s - want
	check "$name" $?
}
for s in fcfs priority fair sjf mlfq; do
	for step in 1 7 64; do
		same "$s, prompts by $step" --engine.scheduler $s --engine.max_seqs 5 --engine.prefill_step $step
	done
	same "$s, steps of so many milliseconds" --engine.scheduler $s --engine.max_seqs 5 --scheduler.$s.prefill_ms 1 \
		--scheduler.$s.prefill_min 2
done
same "priority takes places" --engine.scheduler priority --engine.max_seqs 3 --scheduler.priority.displace true
same "mlfq takes places" --engine.scheduler mlfq --engine.max_seqs 3 --scheduler.mlfq.quantum 2 --scheduler.mlfq.keep 0 \
	--scheduler.mlfq.boost_ms 5
refuses 78 'preempt = swap: this cache' "$mi" batch in -o none $flags --engine.max_seqs 3 --scheduler.fcfs.preempt swap
check "a cache that does not swap is not asked to" $?
done_testing
