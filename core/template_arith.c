/* template_arith.c - Python's arithmetic on values.  Integers have 64 bits; what does not
 * fit is an error, never another number. */
#include "template_eval.h"

#include <math.h>
#include <string.h>

G_NORETURN static void too_large(Ctx *c) { tpl_fail(c, "a number does not fit in 64 bits"); }
G_NORETURN static void by_zero(Ctx *c) { tpl_fail(c, "division by zero"); }

static int64_t floor_mod(int64_t x, int64_t y)
{
    const int64_t r = y == -1 ? 0 : x % y;
    return r && (r < 0) != (y < 0) ? r + y : r;
}

static int64_t floor_div(Ctx *c, int64_t x, int64_t y)
{
    if (x == INT64_MIN && y == -1)
        too_large(c);
    return x / y - ((x % y != 0) && ((x < 0) != (y < 0)));
}

static int64_t power(Ctx *c, int64_t x, int64_t n)
{
    int64_t y = 1;

    while (n > 0) {
        if ((n & 1) && __builtin_mul_overflow(y, x, &y))
            too_large(c);
        n >>= 1;
        if (n && __builtin_mul_overflow(x, x, &x))
            too_large(c);
    }
    return y;
}

static const Value *of_ints(Ctx *c, Op op, int64_t x, int64_t y, bool trusted)
{
    int64_t z = 0;
    bool    over = false;

    if (y == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        by_zero(c);
    if (op == OP_ADD)
        over = __builtin_add_overflow(x, y, &z);
    else if (op == OP_SUB)
        over = __builtin_sub_overflow(x, y, &z);
    else if (op == OP_MUL)
        over = __builtin_mul_overflow(x, y, &z);
    else if (op == OP_DIV)
        return tpl_float(c, (double)x / (double)y, trusted);
    else if (op == OP_FLOORDIV)
        z = floor_div(c, x, y);
    else if (op == OP_MOD)
        z = floor_mod(x, y);
    else if (y < 0 && x == 0)
        by_zero(c);
    else if (y < 0)
        return tpl_float(c, pow((double)x, (double)y), trusted);
    else
        z = power(c, x, y);
    if (over)
        too_large(c);
    return tpl_int(c, z, trusted);
}

static const Value *of_floats(Ctx *c, Op op, double x, double y, bool trusted)
{
    double z, mod = 0;

    if (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) {
        if (y == 0)
            by_zero(c);
        mod = fmod(x, y);
        if (mod != 0 && (mod < 0) != (y < 0))
            mod += y;
        else if (mod == 0)
            mod = copysign(0, y);
    }
    switch (op) {
    case OP_ADD:
        z = x + y;
        break;
    case OP_SUB:
        z = x - y;
        break;
    case OP_MUL:
        z = x * y;
        break;
    case OP_DIV:
        z = x / y;
        break;
    case OP_FLOORDIV:
        z = round((x - mod) / y);
        break;
    case OP_MOD:
        z = mod;
        break;
    default:
        if (x == 0 && y < 0)
            by_zero(c);
        z = pow(x, y);
        if (isnan(z) && !isnan(x) && !isnan(y))
            tpl_fail(c, "a power that is no real number");
        if (isinf(z) && isfinite(x) && isfinite(y))
            tpl_fail(c, "a power is too large");
    }
    return tpl_float(c, z, trusted);
}

/* A string or a list n times. */
static const Value *repeat(Ctx *c, const Value *v, int64_t n)
{
    const Value **at;
    Builder       b = { 0 };
    const size_t  len = is_str(v) ? v->u.text.n : v->u.list.n;
    size_t        times = n > 0 && len ? (size_t)n : 0;

    if (times > MI_TEMPLATE_MAX_MEMORY / MAX(len, 1))
        tpl_fail(c, "needs more than %d MiB of memory", MI_TEMPLATE_MAX_MEMORY >> 20);
    tpl_step(c, times);
    if (is_str(v)) {
        for (; times > 0; times--)
            tpl_put_value(c, &b, v);
        return tpl_built(c, &b);
    }
    at = tpl_array(c, times * len, sizeof *at);
    tpl_step(c, times * len / 64);
    for (size_t i = 0; i < times * len; i++)
        at[i] = v->u.list.at[i % len];
    return tpl_list(c, v->kind, at, times * len);
}

static bool is_sequence(const Value *v) { return is_str(v) || v->kind == V_LIST || v->kind == V_TUPLE; }

/* Lists or tuples; strings are joined where they are evaluated. */
static const Value *add(Ctx *c, const Value *a, const Value *b)
{
    const Value **at;
    const size_t  n = a->u.list.n, m = b->u.list.n;

    at = tpl_array(c, n + m, sizeof *at);
    tpl_step(c, (n + m) / 64);
    if (n)
        memcpy(at, a->u.list.at, n * sizeof *at);
    if (m)
        memcpy(at + n, b->u.list.at, m * sizeof *at);
    return tpl_list(c, a->kind, at, n + m);
}

const Value *tpl_arith(Ctx *c, Op op, const Value *a, const Value *b)
{
    static const char *const signs[] = { [OP_ADD] = "+", [OP_SUB] = "-", [OP_MUL] = "*", [OP_DIV] = "/",
                                         [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "**" };
    const bool               trusted = a->trusted && b->trusted;

    if (tpl_is_number(a) && tpl_is_number(b)) {
        if (a->kind == V_FLOAT || b->kind == V_FLOAT)
            return of_floats(c, op, tpl_number(a), tpl_number(b), trusted);
        return of_ints(c, op, a->u.integer, b->u.integer, trusted);
    }
    if (op == OP_MOD && is_str(a))
        return tpl_percent(c, a, b);
    if (a->kind == V_UNDEFINED)
        tpl_fail_missing(c, a);
    if (b->kind == V_UNDEFINED)
        tpl_fail_missing(c, b);
    if (op == OP_ADD && a->kind == b->kind && (a->kind == V_LIST || a->kind == V_TUPLE))
        return add(c, a, b);
    if (op == OP_MUL && is_sequence(a) && (b->kind == V_INT || b->kind == V_BOOL))
        return repeat(c, a, b->u.integer);
    if (op == OP_MUL && is_sequence(b) && (a->kind == V_INT || a->kind == V_BOOL))
        return repeat(c, b, a->u.integer);
    tpl_fail(c, "a %s and a %s have no %s", tpl_kind_name(a), tpl_kind_name(b), signs[op]);
}

const Value *tpl_negate(Ctx *c, const Value *v)
{
    if (v->kind == V_FLOAT)
        return tpl_float(c, -v->u.number, v->trusted);
    if (v->u.integer == INT64_MIN)
        too_large(c);
    return tpl_int(c, -v->u.integer, v->trusted);
}
