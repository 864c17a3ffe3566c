/* generate.c - continues a text, or answers it as a chat does, and prints the answer as it comes.
 *
 *   cc -o generate generate.c $(pkg-config --cflags --libs miniinfer)
 *   ./generate model.gguf "Once upon a time" 64
 *   ./generate --chat model.gguf "Why is the sky blue?" */
#include <miniinfer/miniinfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Called on our own thread, inside of miniinfer_generate(). */
static bool print(void *user, const MiniinferEvent *e)
{
    if (e->type == MINIINFER_TEXT)
        fwrite(e->tokens.text, 1, e->tokens.len, user);
    fflush(user);
    if (e->type == MINIINFER_DONE && e->result->code == MINIINFER_OK)
        fprintf(stderr, "\n%d tokens in, %d out, %.1f tokens/s\n", e->result->n_prompt, e->result->n_drawn,
                e->result->decode_us ? 1e6 * e->result->n_drawn / (double)e->result->decode_us : 0);
    return !ferror(user); /* nobody reads: stop */
}

int main(int argc, char **argv)
{
    const bool     chat = argc > 1 && strcmp(argv[1], "--chat") == 0;
    char         **arg = argv + chat;
    MiniinferError error;
    Miniinfer     *mi;
    bool           ok;

    if (argc - chat < 3) {
        fprintf(stderr, "usage: generate [--chat] MODEL PROMPT [TOKENS]\n");
        return 64;
    }
    /* Every key of the configuration; the first argument would be an INI file. */
    const MiniinferPair    settings[] = { { "model", arg[1] }, { "sampler.chain", "greedy" }, { NULL, NULL } };
    const MiniinferMessage message = { "user", arg[2] };
    const MiniinferRequest request = {
        .struct_size = sizeof request,
        .text = chat ? NULL : arg[2],
        .messages = chat ? &message : NULL,
        .n_messages = chat,
        .max_tokens = argc - chat > 3 ? atoi(arg[3]) : 0, /* 0: where the model ends */
    };

    ok = (mi = miniinfer_open(NULL, settings, &error)) && miniinfer_load(mi, NULL, NULL, &error) &&
         miniinfer_generate(mi, &request, print, stdout, &error);
    if (!ok)
        fprintf(stderr, "generate: %s\n", error.message);
    miniinfer_close(mi);
    return !ok;
}
