#include "help.h"

#include <stdio.h>
#include <string.h>

const MiFlag mi_common_flags[] = {
    { 'c', "config", "FILE", NULL, "read the configuration FILE" },
    { 'm', "model", "MODEL", "model.path", "a .gguf, a directory, or a name in the local Hugging Face cache" },
    { 't', "threads", "N", "backend.cpu.threads", "threads of the CPU backend" },
    { 'v', "verbose", NULL, NULL, "itemised start-up times and tokens/s on standard error" },
    { 0, "plugin-path", "DIR", NULL, "look for plugins here first; several are separated by ':'" },
    { 'h', "help", NULL, NULL, "show this help" },
    { 0 },
};

static const MiFlag help_flags[] = { { 0, "man", NULL, NULL, "print the man page, as roff" }, { 0 } };
static const MiFlag json_only[] = { { 0, "json", NULL, NULL, "print one JSON object" }, { 0 } };

static const MiFlag inspect_flags[] = {
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0, "reference", NULL, NULL, "print the reference of the configuration: every section and key" },
    { 0, "sample", NULL, NULL, "print a configuration file with every key of the core" },
    { 0 },
};

static const MiFlag run_flags[] = {
    { 'p', "prompt", "TEXT", NULL, "the prompt" },
    { 'f', "file", "FILE", NULL, "the prompt is what FILE holds; - is standard input" },
    { 0, "ids", "IDS", NULL, "the prompt as token ids: 1,2,3" },
    { 0, "raw", NULL, NULL, "no chat template: the model continues the text" },
    { 0, "special", NULL, NULL, "with --raw: read special tokens in the text as such" },
    { 0, "system", "TEXT", "generate.system", "the system message" },
    { 'n', "max-tokens", "N", "generate.max_tokens", "stop after N tokens; 0: where the model ends" },
    { 0, "ignore-eos", NULL, "generate.ignore_eos", "go on where the model would end" },
    { 's', "seed", "N", "sampler.seed", "the same seed gives the same text" },
    { 0, "logprobs", "N", NULL, "log probability of each token, with the N likeliest (1 to 20)" },
    { 0, "prompt-logprobs", NULL, NULL, "log probabilities of the prompt's own tokens; needs --json" },
    { 0, "json", NULL, NULL, "print one JSON object at the end in place of the text" },
    { 0 },
};
static const char *const run_examples[] = {
    "miniinfer run -m model.gguf -p 'Why is the sky blue?'", "answer through the model's chat template",
    "miniinfer run -m Qwen/Qwen2-0.5B-Instruct -f question.txt -n 200", "a model of the Hugging Face cache",
    "miniinfer run -m model.gguf --raw -p 'Once upon a time' -n 64 --sampler.chain greedy --json",
    "continue a text; ids, text and timings as JSON",
    NULL,
};

static const MiFlag chat_flags[] = {
    { 0, "system", "TEXT", "generate.system", "the system message" },
    { 'n', "max-tokens", "N", "generate.max_tokens", "the longest answer, in tokens; 0: where the model ends" },
    { 's', "seed", "N", "sampler.seed", "the same seed gives the same text" },
    { 0 },
};
static const char *const chat_examples[] = {
    "miniinfer chat -m model.gguf", "talk; Ctrl-C stops an answer, Ctrl-D leaves, /help lists what else there is",
    NULL,
};

static const MiFlag batch_flags[] = {
    { 'o', "output", "FILE", "frontend.batch.output", "where answers go; requests answered there are skipped" },
    { 0, "order", "finish | input", "frontend.batch.order", "answers as they finish, or in the order of the input" },
    { 0, "batch-size", "N", "engine.max_seqs", "requests worked on at once" },
    { 0, "prefill-step", "N", "engine.prefill_step", "rows of a step that prompts may take" },
    { 0, "max-length", "N", "engine.max_len", "positions of one request, prompt and answer together" },
    { 'n', "max-tokens", "N", "generate.max_tokens", "the longest answer of a request that does not say" },
    { 's', "seed", "N", "sampler.seed", "the same seed gives the same text" },
    { 0, "raw", NULL, "frontend.batch.raw", "no chat template around a plain prompt" },
    { 0 },
};
static const char *const batch_examples[] = {
    "miniinfer batch prompts.txt -o answers.jsonl -m model.gguf", "a prompt a line in, a JSON object a line out",
    "miniinfer batch requests.jsonl -o answers.jsonl --batch-size 8 -m model.gguf", "requests with their own parameters",
    NULL,
};

static const char *const inspect_examples[] = {
    "miniinfer inspect", "every feature, one a line: kind, name, backend, file, version",
    "miniinfer inspect attention", "those of a kind",
    "miniinfer inspect cache:full", "one of them, with its options, ranges and defaults",
    "miniinfer inspect ./my_plugin.so", "would this plugin load, and if not, why",
    "miniinfer inspect model.gguf", "what a model file holds",
    NULL,
};

static const char *const plan_examples[] = {
    "miniinfer plan -m model.gguf", "what would be chosen and how much memory it takes, without loading the weights",
    NULL,
};

static const MiFlag tokenize_flags[] = {
    { 0, "special", NULL, NULL, "read special tokens in the text as such" },
    { 0, "json", NULL, NULL, "print {\"ids\": [...]}" },
    { '0', "null", NULL, NULL, "standard input is several texts, each ended by a zero byte" },
    { 0 },
};
static const char *const tokenize_examples[] = {
    "printf 'Hello world' | miniinfer tokenize -m model.gguf", "one token a line: its id and its text",
    NULL,
};

static const MiFlag perplexity_flags[] = {
    { 'f', "file", "FILE", NULL, "the text; - is standard input" },
    { 0, "window", "N", NULL, "tokens of a window (512)" },
    { 0, "windows", "N", NULL, "use the first N windows only" },
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0 },
};
static const char *const perplexity_examples[] = {
    "miniinfer perplexity -m model.gguf -f text.txt --json", "how well the model predicts a text",
    NULL,
};

static const MiFlag convert_flags[] = {
    { 0, "dtype", "TYPE", NULL, "of matrices: keep (as stored, where the format can), f32, f16, bf16" },
    { 0, "to", "FORMAT", NULL, "the format to write, where DST's name does not say" },
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0 },
};
static const char *const convert_examples[] = {
    "miniinfer convert model.gguf model-dir --dtype bf16", "a directory of safetensors out of a GGUF file",
    "miniinfer convert model-dir model.gguf", "and back",
    NULL,
};

static const MiFlag quantize_flags[] = {
    { 'o', "output", "OUT", NULL, "the result: a .gguf, else a directory of safetensors; must not exist" },
    { 0, "linear", "KIND", NULL, "what projections become: int4, int8 or fp8" },
    { 0, "group", "N", NULL, "columns that share a scale, or row (int4: 128; int8, fp8: row; in a .gguf always 32)" },
    { 0, "asymmetric", NULL, NULL, "a group has a zero, too" },
    { 0, "method", "NAME", NULL, "rtn: to the nearest; gptq: such that errors make up for each other on a text; awq: inputs scaled such "
      "that a text's errors are least (rtn)" },
    { 0, "calibrate", "FILE", NULL, "the text; with rtn it tells the error of outputs" },
    { 0, "windows", "N", NULL, "parts of the text that are read, evenly over it; an eighth tells the error, and how much gptq trusts the "
      "others (64)" },
    { 0, "window", "N", NULL, "tokens of a part (256)" },
    { 0, "memory", "MB", NULL, "for sums of inputs; with less the text is read more often (1024)" },
    { 0, "layout", "NAME", NULL, "of safetensors: compressed-tensors or gptq (compressed-tensors)" },
    { 0, "report", "FILE.svg", NULL, "plot the error of each projection, layer by layer" },
    { 0, "to", "FORMAT", NULL, "the format to write, where OUT's name does not say" },
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0 },
};
static const char *const quantize_examples[] = {
    "miniinfer quantize model-dir -o model-int4 --linear int4 --method gptq --calibrate text.txt", "with a text that it has not seen",
    "miniinfer quantize model-dir -o model-gptq --linear int4 --method awq --calibrate text.txt --layout gptq --report errors.svg",
    "with its inputs scaled, stored as GPTQ does, and a plot",
    "miniinfer quantize model-dir -o model.gguf --linear int8", "Q8_0 for everything that reads GGUF",
    NULL,
};

static const MiFlag bench_flags[] = {
    { 0, "context", "N,...", NULL, "positions that a sequence has before it is measured (128)" },
    { 0, "batch", "N,...", NULL, "sequences at once (1,8,32)" },
    { 0, "prompt-tokens", "N,...", NULL, "lengths of the prompts of prefill (512)" },
    { 0, "tokens", "N", NULL, "steps of a round (128)" },
    { 0, "rounds", "N", NULL, "rounds; figures are their medians (5)" },
    { 0, "sequences", "N", NULL, "requests of offline (256)" },
    { 0, "input", "N-M", NULL, "lengths of its prompts (100-1024)" },
    { 0, "output", "N-M", NULL, "lengths of its answers (100-1024)" },
    { 0, "seed", "N", NULL, "of its lengths and ids, as Python's random draws them (0)" },
    { 0, "once", NULL, NULL, "no second run of offline, which tells what the time went into" },
    { 0, "plot", "FILE", NULL, "an SVG of what ran, waited and was drawn over time" },
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0 },
};
static const char *const bench_examples[] = {
    "miniinfer bench -m model.gguf", "all of it: one sequence, batches, a prompt",
    "miniinfer bench decode -m bench/shapes/qwen2-7b.json --model.load dummy --context 128,4096",
    "one sequence of a 7B model of random weights",
    "miniinfer bench prefill -m model.gguf --prompt-tokens 8192 --engine.prefill_step 8192 --json", "a long prompt in one step",
    "miniinfer bench offline -m model.gguf --sequences 64 --plot load.svg", "64 requests at once, until the last is answered",
    NULL,
};

static const MiFlag verify_flags[] = {
    { 'p', "prompt", "TEXT", NULL, "the text that is run, as it is" },
    { 0, "ids", "IDS", NULL, "the same as token ids: 1,2,3" },
    { 0, "against", "WHAT", NULL, "the reference: fp32 (of the same device), a device (cpu), linear:NAME, attention:NAME, cache:NAME" },
    { 0, "node", "PATTERN", NULL, "only nodes whose name, feature or plugin file has this; * and ? stand for others" },
    { 0, "steps", "N", NULL, "steps after the prompt that are compared node by node (4)" },
    { 0, "batch", "N", NULL, "sequences of such a step (1); with --determinism requests (8)" },
    { 'n', "tokens", "N", NULL, "tokens of the whole answers that are compared (32); 0: none" },
    { 0, "determinism", NULL, NULL, "compare answers alone and in batches, to the bit, with [engine] deterministic = batch" },
    { 0, "chunks", "LIST", NULL, "with --determinism: in pieces of how many tokens prompts are read (1,7,64,512)" },
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0 },
};
static const char *const verify_examples[] = {
    "miniinfer verify -m model.gguf", "every node against the same device's plain parts in fp32",
    "miniinfer verify --config etc/qwen2.ini --engine.device cuda --against cpu", "a card against the processor",
    "miniinfer verify -m model.gguf --node 'model.layers.0: *' -v", "the first layer, a line for each node",
    "miniinfer verify -m model.gguf --plugin-path /my/plugins --node my_op.so --json", "the nodes that a plugin runs",
    "miniinfer verify -m model.gguf --determinism --batch 16", "16 requests of the text get the same alone and together",
    NULL,
};

static const MiFlag trace_flags[] = {
    { 'p', "prompt", "TEXT", NULL, "the text that is run, as it is" },
    { 0, "ids", "IDS", NULL, "the same as token ids: 1,2,3" },
    { 'o', "output", "FILE", NULL, "write every node here, for chrome://tracing or ui.perfetto.dev" },
    { 0, "steps", "N", NULL, "steps after the prompt (4)" },
    { 0, "batch", "N", NULL, "sequences of such a step (1)" },
    { 0, "rounds", "N", NULL, "times that each step is run; a node's time is the median (5)" },
    { 0, "json", NULL, NULL, "print one JSON object" },
    { 0 },
};
static const char *const trace_examples[] = {
    "miniinfer trace -m model.gguf -p 'Once upon a time' -o trace.json", "a table, and every node in a file",
    "miniinfer trace -m model.gguf --batch 8 --steps 16 --json", "eight sequences at once",
    NULL,
};

static const char *const bare_examples[] = {
    "miniinfer --config etc/qwen2.ini", "chat with what the file describes",
    "echo 'Why is the sky blue?' | miniinfer --config etc/qwen2.ini", "one answer for each line",
    "miniinfer run -m model.gguf -p 'Hello' --sampler.temperature 0.7", "any key of the configuration is an option",
    "miniinfer inspect", "what is there",
    NULL,
};

const MiCommand mi_commands[] = {
    { "", "", 0, 0, "chat on a terminal; from a pipe, answer each line",
      "Runs what the configuration describes: on a terminal a chat, from a pipe one answer for each line of standard "
      "input.",
      chat_flags, bare_examples },
    { "chat", "", 0, 0, "talk with the model on a terminal",
      "Lines are edited and remembered (in ~/.local/state/miniinfer, or where XDG_STATE_HOME says). Ctrl-C stops an "
      "answer, twice quits; Ctrl-D leaves.",
      chat_flags, chat_examples },
    { "run", "", 0, 0, "answer one prompt",
      "The prompt comes from -p, -f, --ids or standard input, and goes through the model's chat template unless --raw or "
      "--ids is given. The text streams to standard output; on a terminal, or with -v, tokens/s follow on standard "
      "error.",
      run_flags, run_examples },
    { "batch", "FILE", 1, 1, "answer a file of prompts or JSONL requests",
      "Each line of FILE is a prompt or, if it starts with {, a request: an object with \"prompt\", \"messages\" or "
      "\"ids\", and as it likes \"id\", \"raw\", \"max_tokens\", \"min_tokens\", \"stop\", \"ignore_eos\", \"logprobs\", "
      "\"prompt_logprobs\", \"n\" and any parameter of the sampler chain. One JSON object a line comes out, as answers finish or in the "
      "order of the input. The same command run again after a stop, whatever stopped it, goes on where it was, and says how "
      "far that is; answers of other requests, settings or another model are refused, by the digests in \"request\". A line "
      "that cannot be read is reported with its number and left out, and the exit status is 65. On a terminal a line shows "
      "how far it is; -v sums up what the engine did.",
      batch_flags, batch_examples },
    { "inspect", "[KIND[:NAME] | FILE.so | MODEL]", 0, 1, "list plugins and features, or look into one",
      "Without an operand every feature, one a line; skipped files with the reason.", inspect_flags,
      inspect_examples },
    { "plan", "", 0, 0, "what would be chosen and how much memory it takes",
      "Reads the model's tables, not its weights. What the engine allocates when it runs equals the figure printed.",
      json_only, plan_examples },
    { "tokenize", "", 0, 0, "turn standard input into token ids",
      "Standard input is taken byte for byte, a final newline included. Of several texts each is answered on a line with "
      "--json, else with an empty line after it.", tokenize_flags, tokenize_examples },
    { "perplexity", "", 0, 0, "how well the model predicts a text",
      "The text is cut into windows of equal length, a rest is dropped, and each window is evaluated alone from position "
      "0: ppl over all its tokens but the first, ppl_second_half over those past its middle.",
      perplexity_flags, perplexity_examples },
    { "convert", "SRC DST", 2, 2, "write a model in another format",
      "Between GGUF and a directory of safetensors, with configuration and tokenizer. DST must not exist.", convert_flags,
      convert_examples },
    { "quantize", "MODEL", 1, 1, "write a model with its projections in 4 or 8 bits",
      "Matrices of layers are rounded one by one; embeddings and the output layer stay as they are. A directory holds them as "
      "compressed-tensors or GPTQ do, which transformers reads, a .gguf as Q4_0 or Q8_0. Prints the error of each matrix, and with a "
      "text that of what it gives, beside what rtn would do. The same command run again after a stop goes on with the matrices that are ready, in OUT.quantize.",
      quantize_flags, quantize_examples },
    { "bench", "[decode | batch | prefill | offline]", 0, 1, "measure how fast it is",
      "Through the engine, with prompts of random ids, greedy unless [sampler] chain says more: milliseconds of a step and "
      "tokens/s for one sequence (decode) or several at once (batch), tokens/s of a prompt (prefill), and the phases of the "
      "start. [engine] max_seqs and max_len are raised where they are too small. A decode step is set against the time that "
      "reading its weights, keys and values takes at the memory's speed, where the backend can measure that. Offline: many "
      "requests of different lengths that are all there at once, sampled at temperature 0.6; tokens/s until the last is "
      "answered, the time to first tokens and between tokens, and, by a second run, what the time went into.",
      bench_flags, bench_examples },
    { "verify", "", 0, 0, "compare every node with a reference",
      "Runs the program node by node on two sides, what is configured and a reference: the prompt, then some steps. Each "
      "node of both sides computes from the reference's values, rounded to the tested side's dtype, so that an error shows "
      "where it is made. A fusion is also compared with the nodes it replaced. Then the answers of both, greedy, as they "
      "are. The worst nodes are listed first, with the plugin file that runs them; the exit status is 1 when one is out of "
      "tolerance, or a token differs that is no near tie. With --determinism requests made of the text are answered alone, "
      "then together, their prompts in pieces, after making room for others and with beginnings found in the cache; tokens and "
      "log probabilities are compared bit for bit, and the status is 1 when one differs. docs/verify.md says how to read it.",
      verify_flags, verify_examples },
    { "trace", "", 0, 0, "where the time of a step goes",
      "Runs a prompt and some steps node by node, with a mark of the device's clock between them, and prints the time by "
      "what ran. Nodes do not overlap here as they do in a recorded step, so that their sum is more than `bench` finds. "
      "On an NVIDIA card every node is an NVTX range, too.",
      trace_flags, trace_examples },
    { "help", "[COMMAND]", 0, 1, "explain a command", "", help_flags, NULL },
    { 0 },
};

/* ---- lookup ---------------------------------------------------------------- */
const MiCommand *mi_command_find(const char *name)
{
    for (const MiCommand *c = mi_commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

const MiFlag *mi_flag_find(const MiCommand *c, const char *name, char letter)
{
    const MiFlag *tables[] = { c->flags, mi_common_flags };

    for (int i = 0; i < 2; i++)
        for (const MiFlag *f = tables[i]; f->name; f++)
            if (name ? strcmp(f->name, name) == 0 : f->letter == letter)
                return f;
    return NULL;
}

/* ---- --help ---------------------------------------------------------------- */
enum { WIDTH = 78, COLUMN = 26 };

/* Words filled up to WIDTH, every line but the first indented; at: the column that the first starts at. */
static void fill(const char *text, int indent, int at)
{
    while (*text) {
        const int n = (int)strcspn(text, " ");
        if (at > indent && at + 1 + n > WIDTH)
            printf("\n%*s", at = indent, "");
        else if (at > indent)
            at += printf(" ");
        at += printf("%.*s", n, text);
        text += n + (text[n] == ' ');
    }
    putchar('\n');
}

static void flags(const char *title, const MiFlag *table)
{
    if (!table->name)
        return;
    printf("\n%s:\n", title);
    for (const MiFlag *f = table; f->name; f++) {
        int n = f->letter ? printf("  -%c, --%s", f->letter, f->name) : printf("      --%s", f->name);
        if (f->arg)
            n += printf(" %s", f->arg);
        if (n >= COLUMN)
            n = printf("\n") - 1;
        printf("%*s", COLUMN - n, "");
        fill(f->help, COLUMN, COLUMN);
    }
}

static void examples(const char *const *e)
{
    if (!e)
        return;
    printf("\nExamples:\n");
    for (; *e; e += 2) {
        printf("  %s\n      ", e[0]);
        fill(e[1], 6, 6);
    }
}

static void overview(void)
{
    printf("usage: miniinfer [COMMAND] [--config FILE] [OPTION...] [--SECTION.KEY VALUE...]\n\n"
           "An inference engine for language models whose every part is a plugin.\n\nCommands:\n");
    for (const MiCommand *c = mi_commands; c->name; c++)
        printf("  %-12s %s\n", *c->name ? c->name : "(none)", c->summary);
    printf("\n`miniinfer help COMMAND` explains one.\n");
    flags("Options of every command", mi_common_flags);
    printf("      --version           show the version\n");
    examples(bare_examples);
}

void mi_help_print(const MiCommand *c)
{
    if (!c || !*c->name) {
        overview();
        return;
    }
    printf("usage: miniinfer %s%s%s [OPTION...] [--SECTION.KEY VALUE...]\n\n", c->name, *c->operands ? " " : "",
           c->operands);
    if (*c->text)
        fill(c->text, 0, 0);
    else
        printf("%s\n", c->summary);
    flags("Options", c->flags);
    flags("Options of every command", mi_common_flags);
    examples(c->examples);
}

/* ---- the man page ---------------------------------------------------------- */
/* What roff would take for its own: backslashes, hyphens that are minus signs, a leading dot or quote. */
static void roff(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++)
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
}

static void man_flags(const MiFlag *table)
{
    for (const MiFlag *f = table; f->name; f++) {
        printf(".TP\n.B ");
        if (f->letter)
            printf("\\-%c, ", f->letter);
        printf("\\-\\-");
        roff(f->name);
        if (f->arg)
            printf(" \\fI%s\\fB", f->arg);
        printf("\n");
        roff(f->help);
        printf("\n");
    }
}

static void man_examples(const char *const *e)
{
    for (; e && *e; e += 2) {
        printf(".TP\n.B ");
        roff(e[0]);
        printf("\n");
        roff(e[1]);
        printf("\n");
    }
}

static const struct { const char *what, *text; } files[] = {
    { "$HF_HOME/hub, ~/.cache/huggingface/hub", "where MODEL is looked up if it is a name such as Qwen/Qwen2-0.5B-Instruct. "
                                                "Nothing is ever downloaded." },
    { "~/.local/state/miniinfer/history", "lines typed in a chat; XDG_STATE_HOME moves it" },
    { "MINIINFER_PLUGIN_PATH", "directories of plugins, separated by colons, after --plugin-path and before [plugins] "
                               "path" },
    { "NO_COLOR, TERM=dumb", "no progress line, no colour" },
};

static const struct { int status; const char *text; } statuses[] = {
    { 0, "success" },
    { 1, "verify: something is out of tolerance" },
    { 64, "usage: an unknown command or option" },
    { 65, "a model or a batch file that is not what it says" },
    { 66, "a file, a model or a feature that is not there" },
    { 69, "a device that fails or is missing" },
    { 70, "an internal error" },
    { 71, "the operating system refused: memory, say" },
    { 74, "reading or writing failed" },
    { 77, "permission denied" },
    { 78, "a configuration with an unknown key, a wrong value, or parts that do not fit" },
    { 130, "stopped by Ctrl-C" },
};

void mi_help_man(void)
{
    printf(".TH MINIINFER 1\n.SH NAME\nminiinfer \\- run language models, every part a plugin\n.SH SYNOPSIS\n");
    for (const MiCommand *c = mi_commands; c->name; c++)
        printf(".B miniinfer%s%s\n\\fI%s%s\\fR[\\fIOPTION\\fR...] [\\fB\\-\\-\\fISECTION.KEY VALUE\\fR...]\n.br\n", *c->name ? " " : "",
               c->name, c->operands, *c->operands ? " " : "");
    printf(".SH DESCRIPTION\n");
    roff(mi_commands[0].text);
    printf("\n.SH OPTIONS OF EVERY COMMAND\n");
    man_flags(mi_common_flags);
    printf(".TP\n.B \\-\\-\\fISECTION.KEY VALUE\nreplaces that key of the configuration\n"
           ".TP\n.B \\-\\-version\nshow the version\n.SH COMMANDS\n");
    for (const MiCommand *c = mi_commands + 1; c->name; c++) {
        printf(".SS %s %s\n", c->name, c->operands);
        roff(*c->text ? c->text : c->summary);
        printf("\n");
        man_flags(c->flags);
        man_examples(c->examples);
    }
    printf(".SH EXIT STATUS\n");
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        printf(".TP\n.B %d\n%s\n", statuses[i].status, statuses[i].text);
    printf(".SH FILES AND ENVIRONMENT\n");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        printf(".TP\n.I ");
        roff(files[i].what);
        printf("\n");
        roff(files[i].text);
        printf("\n");
    }
    printf(".SH EXAMPLES\n");
    man_examples(bare_examples);
}
