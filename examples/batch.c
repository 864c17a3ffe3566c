/* batch.c - answers many prompts at once and prints the answers in the order of the prompts.
 *
 *   cc -o batch batch.c $(pkg-config --cflags --libs miniinfer)
 *   ./batch model.gguf 64 "Once upon a time" "The sun" "A dog" */
#include <miniinfer/miniinfer.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct { size_t done, n; } Progress;

/* As they finish, on our own thread. */
static bool report(void *user, size_t i, const MiniinferResult *r)
{
    Progress *p = user;

    fprintf(stderr, "%zu of %zu: prompt %zu, %d tokens\n", ++p->done, p->n, i, r->n_drawn);
    return true; /* false would cancel the rest */
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: batch MODEL TOKENS PROMPT...\n");
        return 64;
    }
    const size_t        n = (size_t)argc - 3;
    const MiniinferPair settings[] = {
        { "model", argv[1] },
        { "batch-size", "4" },     /* engine.max_seqs: so many sequences in one step */
        { "prefill-step", "128" }, /* engine.prefill_step: so many rows of a step for prompts */
        { "max-length", "512" },   /* engine.max_len: prompt and answer of one */
        { "max-tokens", argv[2] },
        { "sampler.chain", "greedy" },
        { NULL, NULL },
    };
    MiniinferRequest *requests = calloc(n, sizeof *requests);
    MiniinferAnswer **answers = calloc(n, sizeof *answers);
    Progress          progress = { 0, n };
    MiniinferError    error;
    Miniinfer        *mi = NULL;
    bool              ok = requests && answers;

    for (size_t i = 0; i < n && ok; i++)
        requests[i] = (MiniinferRequest){ .struct_size = sizeof *requests, .text = argv[3 + i] };
    if (!ok)
        perror("batch");
    else if (!(mi = miniinfer_open(NULL, settings, &error)) || !miniinfer_load(mi, NULL, NULL, &error) ||
             !miniinfer_batch(mi, requests, n, answers, report, &progress, &error)) {
        fprintf(stderr, "batch: %s\n", error.message);
        ok = false;
    }
    for (size_t i = 0; i < n && ok; i++)
        printf("%s%s\n", argv[3 + i], miniinfer_wait(answers[i], 0)->answer.text);
    for (size_t i = 0; i < n && answers; i++)
        miniinfer_release(answers[i]); /* NULL where there is none */
    miniinfer_close(mi);
    free(requests);
    free(answers);
    return !ok;
}
