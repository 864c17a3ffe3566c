/* trie.c - equal prefixes by a tree whose edges are blocks, to the token.
 *
 * The blocks behind a block stand in a treap (Seidel, Aragon 1996) ordered by their
 * tokens, which ends in logarithmic depth whatever clients send: priorities are
 * random.  On the way to where some tokens would stand lie both neighbours, and so
 * the block that has most of them in common: a match ends within a block. */
#include <miniinfer/plugin.h>
#include <string.h>
#include <sys/random.h>

enum { NONE = -1, ORPHAN = -2 }; /* a parent: the beginning; one that was removed */

typedef struct {
    int32_t  parent, children; /* children: the root of their treap */
    int32_t  left, right;
    uint32_t priority;
} Node;

typedef struct {
    int32_t  block_size, first; /* first: the root of the blocks that begin a text */
    uint64_t random;
    Node    *nodes;  /* [n_blocks] */
    int32_t *tokens; /* [n_blocks][block_size] */
} Trie;

static uint32_t next_random(Trie *t) /* xorshift64* (Vigna 2016) */
{
    t->random ^= t->random >> 12;
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    return (uint32_t)(t->random * 0x2545f4914f6cdd1du >> 32);
}

static const int32_t *tokens_of(const Trie *t, int32_t b) { return t->tokens + (int64_t)b * t->block_size; }

/* How many of n tokens the block begins with. */
static int32_t common(const Trie *t, int32_t b, const int32_t *tokens, int32_t n)
{
    const int32_t *own = tokens_of(t, b);
    int32_t        i = 0;
    while (i < n && own[i] == tokens[i])
        i++;
    return i;
}

/* The block below `root` that has most of n tokens in common; *same: how many. */
static int32_t nearest(const Trie *t, int32_t root, const int32_t *tokens, int32_t n, int32_t *same)
{
    int32_t best = NONE;

    *same = 0;
    for (int32_t b = root; b != NONE && *same < n;) {
        const int32_t k = common(t, b, tokens, n);
        if (k > *same)
            best = b, *same = k;
        if (k < n)
            b = tokens[k] < tokens_of(t, b)[k] ? t->nodes[b].left : t->nodes[b].right;
    }
    return best;
}

static bool before(const Trie *t, int32_t b, const int32_t *tokens)
{
    const int32_t k = common(t, b, tokens, t->block_size);
    return k < t->block_size && tokens_of(t, b)[k] < tokens[k];
}

/* All of `root` into those before the tokens and those behind them. */
static void split(Trie *t, int32_t root, const int32_t *tokens, int32_t *low, int32_t *high)
{
    while (root != NONE)
        if (before(t, root, tokens)) {
            *low = root;
            low = &t->nodes[root].right;
            root = *low;
        } else {
            *high = root;
            high = &t->nodes[root].left;
            root = *high;
        }
    *low = *high = NONE;
}

/* Both into one; all of low stand before all of high. */
static int32_t merge(Trie *t, int32_t low, int32_t high)
{
    int32_t root, *at = &root;

    while (low != NONE && high != NONE)
        if (t->nodes[low].priority > t->nodes[high].priority) {
            *at = low;
            at = &t->nodes[low].right;
            low = *at;
        } else {
            *at = high;
            at = &t->nodes[high].left;
            high = *at;
        }
    *at = low != NONE ? low : high;
    return root;
}

static void destroy(void *self)
{
    Trie *t = self;
    g_free(t->nodes);
    g_free(t->tokens);
    g_free(t);
}

static void *create(const MiPrefixSpec *spec, const void *options, GError **error)
{
    const size_t n = (size_t)MAX(spec->n_blocks, 1), size = (size_t)MAX(spec->block_size, 1);
    Trie        *t = g_new0(Trie, 1);

    (void)options;
    t->block_size = spec->block_size;
    t->first = NONE;
    if (getentropy(&t->random, sizeof t->random) != 0)
        t->random = (uint64_t)g_get_monotonic_time();
    t->random |= 1;
    if (n > SIZE_MAX / 4 / size || !(t->nodes = g_try_new0(Node, n)) || !(t->tokens = g_try_new(int32_t, n * size))) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "prefix 'trie': %zu blocks of %zu tokens: no memory", n, size);
        destroy(t);
        return NULL;
    }
    return t;
}

static int32_t find(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
    const Trie *t = self;
    int32_t     root = t->first, found = 0, same;

    do {
        const int32_t b = nearest(t, root, tokens + found, MIN(n - found, t->block_size), &same);
        if (b == NONE)
            break;
        *blocks++ = b;
        found += same;
        root = t->nodes[b].children;
    } while (same == t->block_size);
    return found;
}

static int32_t *root_of(Trie *t, int32_t parent) { return parent == NONE ? &t->first : &t->nodes[parent].children; }

static int32_t insert(void *self, int32_t parent, const int32_t *tokens, int32_t block)
{
    Trie         *t = self;
    int32_t      *at = root_of(t, parent), same;
    const int32_t have = nearest(t, *at, tokens, t->block_size, &same);

    if (same == t->block_size)
        return have;
    Node *n = &t->nodes[block];
    *n = (Node){ .parent = parent, .children = NONE, .priority = next_random(t) };
    memcpy(t->tokens + (int64_t)block * t->block_size, tokens, (size_t)t->block_size * sizeof *tokens);
    while (*at != NONE && t->nodes[*at].priority > n->priority)
        at = before(t, *at, tokens) ? &t->nodes[*at].right : &t->nodes[*at].left;
    split(t, *at, tokens, &n->left, &n->right);
    *at = block;
    return block;
}

/* All of a treap stand behind nothing; the tree is turned into a list on the way, no stack is needed. */
static void orphan(Trie *t, int32_t root)
{
    while (root != NONE) {
        Node *n = &t->nodes[root];
        if (n->left != NONE) { /* the left one becomes the root */
            const int32_t left = n->left;
            n->left = t->nodes[left].right;
            t->nodes[left].right = root;
            root = left;
            continue;
        }
        root = n->right;
        n->parent = ORPHAN;
        n->right = NONE;
    }
}

static void remove_block(void *self, int32_t block)
{
    Trie *t = self;
    Node *n = &t->nodes[block];

    if (n->parent != ORPHAN) {
        int32_t *at = root_of(t, n->parent);
        while (*at != block)
            at = before(t, *at, tokens_of(t, block)) ? &t->nodes[*at].right : &t->nodes[*at].left;
        *at = merge(t, n->left, n->right);
    }
    orphan(t, n->children);
    *n = (Node){ .parent = ORPHAN, .children = NONE, .left = NONE, .right = NONE };
}

static const MiPrefix trie = {
    .struct_size = sizeof trie,
    .create = create,
    .destroy = destroy,
    .find = find,
    .insert = insert,
    .remove = remove_block,
};

MI_PLUGIN("trie", "0.1", "Equal prefixes by a tree of blocks", MI_FEATURE_PREFIX("trie", "*", &trie, NULL));
