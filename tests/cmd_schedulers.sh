#!/bin/sh
# Whatever the scheduler, the chunks of prompts, the room and who loses its place: each request gets the tokens it gets
# alone.  On the processor, and on a device that has two steps under way.
. "$MI_SRCDIR/tests/tap.sh"
m=$data/models/stories260K.gguf
[ -r "$m" ] || m=$models/stories260K.gguf
"$mi" inspect frontend:batch >/dev/null 2>&1 || skip_all "built without jansson"

requests() { # a prompt for each
	i=0
	for start in "$@"; do
		for client in ann bob ann; do
			i=`expr $i + 1`
			echo "{\"prompt\": \"$start\", \"id\": $i, \"seed\": $i, \"client\": \"$client\", \"priority\": `expr $i % 3`, \"max_tokens\": `expr 5 + $i \* 7 % 40`, \"temperature\": `expr $i % 2`, \"repetition_penalty\": 1.2}"
		done
	done
}
same() { # name, options
	name=$1; shift
	rm -f got
	status 0 "$mi" batch in -o got $flags "$@" && sort got | cmp -s - want
	check "$name" $?
}
suite() { # device, prompts; with $mi, $flags, and $pool bytes for a sequence and a third
	device=$1; shift
	requests "$@" >in
	rm -f alone
	status 0 "$mi" batch in -o alone $flags --engine.max_seqs 1 && [ "`wc -l <alone`" = `expr $# \* 3` ]
	check "$device: each alone" $?
	sort alone >want
	for s in fcfs priority fair sjf mlfq; do
		for step in 1 7 64; do
			same "$device: $s, prompts by $step" --engine.scheduler $s --engine.max_seqs 5 --engine.prefill_step $step
		done
		same "$device: $s, steps of so many milliseconds" --engine.scheduler $s --engine.max_seqs 5 --scheduler.$s.prefill_ms 1 \
			--scheduler.$s.prefill_min 2
		scarce="--engine.max_seqs 6 --engine.cache paged --cache.paged.block_size 8 --cache.paged.bytes $pool --engine.prefill_step 16"
		same "$device: $s, little room" --engine.scheduler $s $scarce
		same "$device: $s, little room, swapping" --engine.scheduler $s $scarce --scheduler.$s.preempt swap --cache.paged.swap $pool
	done
	same "$device: priority takes places" --engine.scheduler priority --engine.max_seqs 3 --scheduler.priority.displace true
	quick="--engine.scheduler mlfq --scheduler.mlfq.quantum 2 --scheduler.mlfq.keep 0 --scheduler.mlfq.boost_ms 5"
	same "$device: mlfq takes places" $quick --engine.max_seqs 3
	same "$device: mlfq swaps places" $quick $scarce --scheduler.mlfq.preempt swap --cache.paged.swap $pool
	refuses 78 'preempt = swap: this cache' "$mi" batch in -o none $flags --engine.max_seqs 3 --scheduler.fcfs.preempt swap \
		--engine.cache batch
	check "$device: a cache that does not swap is not asked to" $?
}

chain="--sampler.chain penalties,temperature,top_k,multinomial --engine.max_len 64 --raw"
flags="--model.path $m --engine.dtype fp32 $chain" pool=110KB
if [ -r "$m" ]; then
	suite cpu "Once upon a time" Lily "The park was" "Tom and his dog went to the river because" "One day" "A red ball"
else
	skip "cpu" "no stories260K.gguf; MI_DATA or MI_MODELS says where it is"
fi
mi="$MI_BUILDDIR/miniinfer_remote"
if [ -x "$mi" ]; then
	mkdir plugins && cp "$MI_BUILDDIR/tests/plugins/tiny.so" plugins
	echo tiny >model.tiny
	flags="-m model.tiny --plugin-path $PWD/plugins --engine.device remote --engine.linear reference $chain" pool=24KB
	suite remote hello "so it goes" you "a b c d e f g h i j" no "two of them"
else
	skip "a device with two steps under way" "not built"
fi
done_testing
