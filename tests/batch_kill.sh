#!/bin/sh
# A batch that is killed (-9) at random moments, again and again, ends with every answer once and the very bytes of a
# run that nobody disturbed.  MI_KILLS: how many kills for each order (6), MI_KILL_SEED: of the moments,
# MI_KILL_REQUESTS: how long the input is.
. "$MI_SRCDIR/tests/tap.sh"
m=$data/models/stories260K.gguf
[ -r "$m" ] || m=$models/stories260K.gguf
[ -r "$m" ] || skip_all "no stories260K.gguf; MI_DATA or MI_MODELS says where it is"
"$mi" inspect frontend:batch >/dev/null 2>&1 || skip_all "built without jansson"
flags="--model.path $m --engine.dtype fp32 --raw -n 8 --sampler.chain greedy --batch-size 16"
kills=${MI_KILLS:-6}
requests=${MI_KILL_REQUESTS:-300}

# Ids that are numbers, texts and line numbers; answers of several lengths; some of several parts; bad lines between.
awk -v n="$requests" 'BEGIN {
	for (i = 1; i <= n; i++) {
		if (i % 50 == 7) print "{\"prompt\": 5}"
		else if (i % 10 == 0) printf "{\"prompt\": \"The cat %d\", \"id\": \"c%d\", \"n\": 3, \"max_tokens\": %d}\n", i, i, 1 + i % 17
		else if (i % 5 == 0) printf "{\"prompt\": \"A dog %d\", \"id\": %d}\n", i, 100000 + i
		else printf "Once upon a time %d\n", i
	}
}' >in
"$mi" batch in -o whole $flags >out 2>err
[ $? = 65 ] && [ "`wc -l <whole`" -gt "$requests" ]; check "undisturbed" $?
"$mi" batch in -o in_order $flags --order input >out 2>err
[ $? = 65 ] && [ "`sort whole | cksum`" = "`sort in_order | cksum`" ]; check "the same in order" $?

# Seconds of one run, so that the moments lie all over it.
began=`date +%s%N`
"$mi" batch in -o timed $flags >out 2>err
all=`expr \( \`date +%s%N\` - $began \) / 1000000`
for order in finish input; do
	rm -f got; twice=0 torn=0
	awk -v n="$kills" -v all="$all" -v seed="${MI_KILL_SEED:-1}" 'BEGIN {
		srand(seed); for (i = 0; i < n; i++) printf "%.4f\n", rand() * all / 1000 * (n > 20 ? 0.1 : 0.4) }' >moments
	while read -r moment; do
		"$mi" batch in -o got $flags --order $order >out 2>err & pid=$!
		sleep "$moment"
		kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null
		[ -r got ] || continue
		[ -z "`tail -c 1 got | tr -d '\n'`" ] || torn=`expr $torn + 1`
		sed 's/,"text".*//' got | sort | uniq -d >again
		[ ! -s again ] || twice=`expr $twice + 1`
		# what a kill between two halves of a write would leave, which it seldom does
		[ "`wc -l <got`" -lt 3 ] || { tail -n 1 got | head -c 40 >half; sed '$d' got >less; cat less half >got; }
	done <moments
	before=`grep -c '' got`
	"$mi" batch in -o got $flags --order $order >out 2>err
	[ $? = 65 ] && grep -q ' answers are there' err; check "$order: goes on after $kills kills with $before lines" $?
	[ $twice = 0 ]; check "$order: nothing twice at any moment" $?
	if [ $order = input ]; then cmp -s got in_order; else [ "`sort got | cksum`" = "`sort whole | cksum`" ]; fi
	check "$order: the very answers of a run that nobody disturbed" $?
	echo "# $order: $torn broken lines by the kills themselves, and one made after each"
done
done_testing
