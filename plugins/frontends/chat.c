/* chat.c - a conversation on a terminal.
 *
 * Lines are edited and remembered by libedit; built without it, or when input
 * is no terminal, they are read as they come.  Answers stream.  Ctrl-C stops an
 * answer, or drops the line being typed; a second one in a row quits; Ctrl-D
 * leaves.  The whole conversation is sent anew each time, through the model's
 * chat template; what of it the cache still holds is the engine's business.
 *
 * Three threads meet here: serve()'s, the engine's in event(), and whichever
 * one a signal lands on.  The latter two write a byte into a pipe that the
 * first one reads. */
#include <miniinfer/plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_EDIT
#include <histedit.h>
#include <wchar.h>
#endif

typedef struct {
    const char *system, *history;
    int32_t     max_tokens;
} Options;

typedef struct {
    const char *role; /* static */
    char       *text;
} Message;

typedef struct {
    MiEngine *engine;
    Options   options;
    GArray   *messages; /* Message */
    bool      terminal; /* lines are edited, hints are given */
    int       wake[2];  /* the pipe; both ends do not block */
    bool      stopped;  /* stop() was called; atomic */
    int       seen;     /* interrupts that were dealt with */

    GMutex   lock; /* of what event() fills */
    GString *news; /* text not shown yet */
    bool     done;
    GError  *error; /* NULL: none */
    MiFinish finish;
    int32_t  n_prompt, n_cached, n_drawn;
    int64_t  prompt_us, decode_us;

#ifdef HAVE_EDIT
    EditLine *line;
    History  *past;
    char     *past_file; /* NULL: not kept */
    mbstate_t shift;
#endif
} Chat;

/* What the signal handler sees. */
static int                   signal_pipe = -1;
static volatile sig_atomic_t interrupts; /* since something else happened */

/* ---- waking up ------------------------------------------------------------------ */
static void poke(int fd)
{
    const int old = errno;
    /* A full pipe wakes the reader just as well. */
    if (write(fd, "", 1) < 0)
        errno = old;
}

static void on_interrupt(int number)
{
    (void)number;
    interrupts++;
    poke(signal_pipe);
}

static void drain(const Chat *c)
{
    char bytes[64];
    while (read(c->wake[0], bytes, sizeof bytes) > 0)
        ;
}

/* As if the signal had never been handled: the shell learns what ended the program. */
static void quit(void)
{
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
}

static bool stopped(Chat *c) { return __atomic_load_n(&c->stopped, __ATOMIC_RELAXED); }

/* ---- lines ---------------------------------------------------------------------- */
static bool called_off(Chat *c) { return interrupts != c->seen || stopped(c); }

/* Until a byte of input is there; false: a signal or stop() came first. */
static bool input_ready(Chat *c)
{
    struct pollfd at[] = { { STDIN_FILENO, POLLIN, 0 }, { c->wake[0], POLLIN, 0 } };

    while (!called_off(c)) {
        if (poll(at, 2, -1) < 0 && errno != EINTR)
            return true; /* read() will say what is wrong */
        if (at[1].revents)
            drain(c);
        else if (at[0].revents)
            return !called_off(c);
    }
    return false;
}

/* Plain reading, byte by byte so that nothing stays in a buffer poll() cannot see.  NULL: end, or interrupted. */
static char *plain_line(Chat *c)
{
    GString *line = g_string_new(NULL);
    char     byte;
    ssize_t  n = 0;

    while (input_ready(c) && (n = read(STDIN_FILENO, &byte, 1)) > 0 && byte != '\n')
        g_string_append_c(line, byte);
    if (n > 0 || line->len)
        return g_string_free(line, FALSE);
    g_string_free(line, TRUE);
    return NULL;
}

#ifdef HAVE_EDIT
static const char *prompt(EditLine *e)
{
    (void)e;
    return "> ";
}

enum { CTRL_D = 4 };

/* libedit's reader of one character. */
static int get_character(EditLine *e, wchar_t *out)
{
    Chat *c;
    char  byte;

    el_get(e, EL_CLIENTDATA, &c);
    for (;;) {
        if (!input_ready(c) || read(STDIN_FILENO, &byte, 1) <= 0)
            return 0;
        if (byte == '\0')
            byte = CTRL_D; /* typed before the editor had the terminal, which then keeps an end of file so */
        const size_t n = mbrtowc(out, &byte, 1, &c->shift);
        if (n == (size_t)-1)
            memset(&c->shift, 0, sizeof c->shift); /* a stray byte */
        else if (n != (size_t)-2)
            return 1;
    }
}

/* $XDG_STATE_HOME/miniinfer/history, made where it is missing; NULL: not to be kept. */
static char *history_file(const Options *o)
{
    const char      *state = g_getenv("XDG_STATE_HOME");
    g_autofree char *dir = state && g_path_is_absolute(state)
                               ? g_build_filename(state, "miniinfer", NULL)
                               : g_build_filename(g_get_home_dir(), ".local", "state", "miniinfer", NULL);

    if (strcmp(o->history, "none") == 0)
        return NULL;
    if (*o->history)
        return g_strdup(o->history);
    return g_mkdir_with_parents(dir, 0700) == 0 ? g_build_filename(dir, "history", NULL) : NULL;
}

static void edit_begin(Chat *c)
{
    HistEvent event;

    c->line = el_init("miniinfer", stdin, stdout, stderr);
    c->past = history_init();
    if (!c->line || !c->past)
        return;
    c->past_file = history_file(&c->options);
    history(c->past, &event, H_SETSIZE, 1000);
    history(c->past, &event, H_SETUNIQUE, 1);
    if (c->past_file)
        history(c->past, &event, H_LOAD, c->past_file);
    el_set(c->line, EL_CLIENTDATA, c);
    el_set(c->line, EL_PROMPT, prompt);
    el_set(c->line, EL_EDITOR, "emacs");
    el_set(c->line, EL_HIST, history, c->past);
    el_set(c->line, EL_GETCFN, get_character);
    el_source(c->line, NULL);
}

static void edit_end(Chat *c)
{
    HistEvent event;

    if (c->past && c->past_file && history(c->past, &event, H_SAVE, c->past_file) >= 0)
        g_chmod(c->past_file, 0600);
    if (c->past)
        history_end(c->past);
    if (c->line)
        el_end(c->line);
    g_free(c->past_file);
    c->line = NULL;
    c->past = NULL;
    c->past_file = NULL;
}

static char *edited_line(Chat *c)
{
    HistEvent   event;
    int         n = 0;
    const char *text = el_gets(c->line, &n);

    if (!text || n <= 0)
        return NULL;
    if (*text != '\n')
        history(c->past, &event, H_ENTER, text);
    return g_strndup(text, (gsize)n - (text[n - 1] == '\n'));
}

static char *one_line(Chat *c) { return c->line && c->past ? edited_line(c) : plain_line(c); }
#else
static void edit_begin(Chat *c) { (void)c; }
static void edit_end(Chat *c) { (void)c; }

static char *one_line(Chat *c)
{
    if (c->terminal)
        fputs("> ", stdout);
    fflush(stdout);
    return plain_line(c);
}
#endif

/* A line that ends in a backslash goes on in the next. */
static char *whole_line(Chat *c)
{
    g_autofree char *line = one_line(c);
    const size_t     len = line ? strlen(line) : 0;

    if (!len || line[len - 1] != '\\')
        return g_steal_pointer(&line);
    line[len - 1] = '\n';
    g_autofree char *rest = whole_line(c);
    return rest ? g_strconcat(line, rest, NULL) : NULL;
}

/* ---- the conversation -------------------------------------------------------------- */
static void clear_message(void *at) { g_free(((Message *)at)->text); }

static void say(Chat *c, const char *role, char *text /* taken */)
{
    Message m = { role, text };
    g_array_append_val(c->messages, m);
}

static void forget(Chat *c)
{
    g_array_set_size(c->messages, 0);
    if (*c->options.system)
        say(c, "system", g_strdup(c->options.system));
}

static MiVar text_var(const char *text) { return (MiVar){ .type = MI_VAR_TEXT, .text = text, .n = strlen(text) }; }

/* NULL with *error; the caller frees the ids. */
static int32_t *encode(Chat *c, size_t *n_ids, GError **error)
{
    static const char *const message_keys[] = { "role", "content" };
    static const char *const top_keys[] = { "messages", "add_generation_prompt" };
    const guint         n = c->messages->len;
    g_autofree MiVar   *fields = g_new0(MiVar, 2 * n), *list = g_new0(MiVar, n);

    for (guint i = 0; i < n; i++) {
        const Message *m = &g_array_index(c->messages, Message, i);
        fields[2 * i] = text_var(m->role);
        fields[2 * i + 1] = text_var(m->text);
        list[i] = (MiVar){ .type = MI_VAR_MAP, .n = 2, .items = fields + 2 * i, .keys = message_keys };
    }
    const MiVar top[] = { { .type = MI_VAR_LIST, .n = n, .items = list }, { .type = MI_VAR_BOOL, .integer = 1 } };
    const MiVar vars = { .type = MI_VAR_MAP, .n = 2, .items = top, .keys = top_keys };
    return c->engine->api->encode_chat(c->engine, &vars, n_ids, error);
}

/* ---- an answer ---------------------------------------------------------------------- */
/* Engine thread. */
static void event(void *user, const MiEvent *e)
{
    Chat *c = user;

    g_mutex_lock(&c->lock);
    if (e->type == MI_EVENT_TEXT)
        g_string_append_len(c->news, e->text, (gssize)e->len);
    if (e->type == MI_EVENT_ERROR)
        c->error = g_error_new_literal(MI_ERROR, e->code, e->text);
    if (e->type == MI_EVENT_DONE) {
        c->finish = e->finish;
        c->n_prompt = e->n_prompt, c->n_cached = e->n_cached, c->n_drawn = e->n_drawn;
        c->prompt_us = e->prompt_us, c->decode_us = e->decode_us;
    }
    c->done = e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR;
    g_mutex_unlock(&c->lock);
    poke(c->wake[1]);
}

/* Shows what has come, adds it to the answer; true: that was all. */
static bool show(Chat *c, GString *answer)
{
    g_mutex_lock(&c->lock);
    const bool       done = c->done;
    g_autofree char *text = g_strndup(c->news->str, c->news->len);
    const size_t     len = c->news->len;
    g_string_truncate(c->news, 0);
    g_mutex_unlock(&c->lock);
    g_string_append_len(answer, text, (gssize)len);
    fwrite(text, 1, len, stdout);
    fflush(stdout);
    return done;
}

static void wait_for_answer(Chat *c, uint64_t id, GString *answer)
{
    struct pollfd at = { c->wake[0], POLLIN, 0 };
    bool          cancelled = false;

    while (!show(c, answer)) {
        if ((interrupts || stopped(c)) && !cancelled) {
            cancelled = true;
            c->engine->api->cancel(c->engine, id);
        }
        if (interrupts > 1)
            quit();
        poll(&at, 1, -1);
        drain(c);
    }
}

static void print_speed(const Chat *c)
{
    const bool plain = g_getenv("NO_COLOR") || g_strcmp0(g_getenv("TERM"), "dumb") == 0;

    if (!isatty(STDERR_FILENO) || !c->terminal)
        return;
    fprintf(stderr, "%s[prompt %d tokens, %.1f tokens/s; answer %d tokens, %.1f tokens/s%s]%s\n", plain ? "" : "\033[2m",
            c->n_prompt, c->prompt_us > 0 ? 1e6 * (c->n_prompt - c->n_cached) / (double)c->prompt_us : 0, c->n_drawn,
            c->decode_us > 0 && c->n_drawn > 1 ? 1e6 * (c->n_drawn - 1) / (double)c->decode_us : 0,
            c->finish == MI_FINISH_LENGTH ? "; cut at its length" : "", plain ? "" : "\033[0m");
}

/* The last message is the user's; the answer becomes the next one. */
static bool answer(Chat *c, GError **error)
{
    size_t              n = 0;
    g_autofree int32_t *ids = encode(c, &n, error);
    uint64_t            id;

    if (!ids)
        return false;
    c->done = false;
    if (!(id = c->engine->api->submit(c->engine, &(MiRequest){ .tokens = ids, .n_tokens = n, .event = event, .user = c,
                                                              .max_tokens = c->options.max_tokens }, error)))
        return false;
    GString *text = g_string_new(NULL);
    wait_for_answer(c, id, text);
    if (!text->len || text->str[text->len - 1] != '\n')
        putchar('\n');
    fflush(stdout);
    if (c->error) {
        g_propagate_error(error, g_steal_pointer(&c->error));
        g_string_free(text, TRUE);
        return false;
    }
    say(c, "assistant", g_string_free(text, FALSE));
    print_speed(c);
    return true;
}

/* An error ends the turn, not the chat: the question is taken back.  In a pipe, and when the device
 * failed, it ends both. */
static bool turn(Chat *c, GError **error)
{
    g_autoptr(GError) why = NULL;

    const bool ok = answer(c, &why);
    c->seen = interrupts = 0;
    if (ok)
        return true;
    g_array_set_size(c->messages, c->messages->len - 1);
    if (!c->terminal || g_error_matches(why, MI_ERROR, MI_ERROR_DEVICE)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    fprintf(stderr, "%s%s\n", why->message,
            c->messages->len > 1 ? " (/reset forgets the conversation so far)" : "");
    return true;
}

/* ---- what is not for the model ----------------------------------------------------- */
static bool again(Chat *c, GError **error)
{
    if (c->messages->len < 2 || strcmp(g_array_index(c->messages, Message, c->messages->len - 1).role, "assistant") != 0) {
        puts("there is no answer yet");
        return true;
    }
    g_array_set_size(c->messages, c->messages->len - 1);
    return turn(c, error);
}

/* False: leave. */
static bool command(Chat *c, const char *line, bool *ok, GError **error)
{
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0)
        return false;
    if (strcmp(line, "/reset") == 0)
        forget(c);
    else if (strcmp(line, "/again") == 0)
        *ok = again(c, error);
    else
        puts("/reset   forget the conversation\n/again   another answer to the last question\n/quit    leave; so does "
             "Ctrl-D\nCtrl-C   stops an answer\nA line that ends in \\ goes on in the next; //x asks the model /x.");
    fflush(stdout);
    return true;
}

/* No line came: the end, Ctrl-C, or stop().  False: leave. */
static bool no_line(Chat *c)
{
    const int now = interrupts; /* one that comes from here on calls off the next line */

    if (now == c->seen || stopped(c))
        return false;
    if (now > 1) {
        edit_end(c);
        putchar('\n');
        fflush(stdout);
        quit();
    }
    c->seen = now;
    puts("\n(Ctrl-C again, or Ctrl-D, leaves)");
    return true;
}

static bool converse(Chat *c, GError **error)
{
    bool ok = true;

    while (ok && !stopped(c)) {
        g_autofree char *line = whole_line(c);
        if (!line) {
            if (!no_line(c))
                break;
            continue;
        }
        c->seen = interrupts = 0;
        if (*line == '/' && line[1] != '/') {
            if (!command(c, line, &ok, error))
                break;
        } else if (*g_strstrip(line)) {
            say(c, "user", g_strdup(line + (*line == '/')));
            ok = turn(c, error);
        }
    }
    return ok;
}

/* ---- the vtable -------------------------------------------------------------------- */
static void *create(MiEngine *engine, const void *options, GError **error)
{
    Chat *c = g_new0(Chat, 1);

    c->engine = engine;
    c->options = *(const Options *)options;
    c->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (pipe(c->wake) != 0) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "chat: no pipe: %s", g_strerror(errno));
        g_free(c);
        return NULL;
    }
    for (int i = 0; i < 2; i++)
        fcntl(c->wake[i], F_SETFL, O_NONBLOCK);
    c->messages = g_array_new(FALSE, FALSE, sizeof(Message));
    g_array_set_clear_func(c->messages, clear_message);
    c->news = g_string_new(NULL);
    g_mutex_init(&c->lock);
    forget(c);
    return c;
}

static bool serve(void *self, GError **error)
{
    Chat            *c = self;
    struct sigaction mine = { .sa_handler = on_interrupt }, old;
    int32_t          max_len = 0;

    signal_pipe = c->wake[1];
    c->seen = interrupts = 0;
    sigaction(SIGINT, &mine, &old);
    if (c->terminal) {
        const char *model = c->engine->api->model(c->engine, &max_len);
        printf("%s, %d tokens of context; /help lists commands, Ctrl-D leaves\n", model, max_len);
        edit_begin(c);
    }
    const bool ok = converse(c, error);
    if (c->terminal) {
        edit_end(c);
        putchar('\n');
    }
    sigaction(SIGINT, &old, NULL);
    return ok;
}

static void stop(void *self)
{
    Chat *c = self;
    __atomic_store_n(&c->stopped, true, __ATOMIC_RELAXED);
    poke(c->wake[1]);
}

static void destroy(void *self)
{
    Chat *c = self;

    g_array_unref(c->messages);
    g_string_free(c->news, TRUE);
    g_mutex_clear(&c->lock);
    close(c->wake[0]);
    close(c->wake[1]);
    g_free(c);
}

static const MiFrontend chat = {
    .struct_size = sizeof chat, .create = create, .serve = serve, .stop = stop, .destroy = destroy,
};

static const MiOption options[] = {
    MI_OPTION(Options, system, "", 0, 0, "the system message; empty: the template's own"),
    MI_OPTION(Options, max_tokens, "0", 0, 1 << 24, "the longest answer, in tokens; 0: where the model ends"),
    MI_OPTION(Options, history, "", 0, 0,
              "where typed lines are kept; empty: miniinfer/history in the user's state directory; none: nowhere"),
    MI_OPTION_END,
};

MI_PLUGIN("chat", "0.1", "A conversation on a terminal", MI_FEATURE_FRONTEND("chat", "*", &chat, options));
