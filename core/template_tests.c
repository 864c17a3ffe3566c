/* template_tests.c - what `x is ...` can ask. */
#include "template_eval.h"

#define TEST(name) static const Value *name(Ctx *c, const Value *v, const Args *args)
#define OF_KIND(name, holds) TEST(name) { return (void)c, (void)v, (void)args, tpl_bool(holds); }

OF_KIND(defined, v->kind != V_UNDEFINED)
OF_KIND(undefined, v->kind == V_UNDEFINED)
OF_KIND(none, v->kind == V_NONE)
OF_KIND(boolean, v->kind == V_BOOL)
OF_KIND(is_true, v->kind == V_BOOL && v->u.integer)
OF_KIND(is_false, v->kind == V_BOOL && !v->u.integer)
OF_KIND(integer, v->kind == V_INT)
OF_KIND(is_float, v->kind == V_FLOAT)
OF_KIND(number, tpl_is_number(v))
OF_KIND(string, v->kind == V_STRING)
OF_KIND(mapping, v->kind == V_DICT)
OF_KIND(callable, v->kind == V_MACRO || v->kind == V_BOUND || v->kind == V_JOINER || v->kind == V_LOOP ||
                      v->kind == V_UNDEFINED)
OF_KIND(sequence, v->kind == V_STRING || v->kind == V_LIST || v->kind == V_TUPLE || v->kind == V_RANGE ||
                      v->kind == V_DICT || v->kind == V_UNDEFINED)
OF_KIND(iterable, v->kind == V_STRING || v->kind == V_LIST || v->kind == V_TUPLE || v->kind == V_RANGE ||
                      v->kind == V_DICT || v->kind == V_UNDEFINED || v->kind == V_VIEW || v->kind == V_STREAM ||
                      v->kind == V_LOOP)
OF_KIND(escaped, false)

static const Value *remainder_of(Ctx *c, const Value *v, int64_t by)
{
    return tpl_arith(c, OP_MOD, v, tpl_int(c, by, true));
}

TEST(even) { return (void)args, tpl_bool(tpl_number(remainder_of(c, v, 2)) == 0); }
TEST(odd) { return (void)args, tpl_bool(tpl_number(remainder_of(c, v, 2)) == 1); }
TEST(divisibleby)
{
    return tpl_bool(tpl_number(remainder_of(c, v, tpl_integer(c, args->at[0], "a divisor"))) == 0);
}

TEST(eq) { return tpl_bool(tpl_equal(c, v, args->at[0])); }
TEST(ne) { return tpl_bool(!tpl_equal(c, v, args->at[0])); }
TEST(lt) { return tpl_bool(tpl_order(c, v, args->at[0]) == -1); }
TEST(gt) { return tpl_bool(tpl_order(c, v, args->at[0]) == 1); }
TEST(le) { return tpl_bool(tpl_order(c, v, args->at[0]) <= 0); }
TEST(ge)
{
    const int order = tpl_order(c, v, args->at[0]);
    return tpl_bool(order == 0 || order == 1);
}

TEST(in) { return tpl_bool(tpl_contains(c, args->at[0], v)); }

TEST(sameas)
{
    const Value *other = args->at[0];
    const bool   plain = v->kind == V_NONE || v->kind == V_BOOL || v->kind == V_INT;
    return tpl_bool(v == other || (plain && v->kind == other->kind && tpl_equal(c, v, other)));
}

/* All letters of one case, and at least one of them, as str.islower(). */
static const Value *by_method(Ctx *c, const Value *v, const char *name)
{
    return tpl_call_builtin(c, tpl_builtin(tpl_string_methods, name), tpl_to_str(c, v), &(const Args){ 0 });
}

TEST(lower) { return (void)args, by_method(c, v, "islower"); }
TEST(upper) { return (void)args, by_method(c, v, "isupper"); }
TEST(filter) { return (void)args, tpl_bool(is_str(v) && tpl_filter(tpl_name(c, v))); }
TEST(test) { return (void)args, tpl_bool(is_str(v) && tpl_builtin(tpl_tests, tpl_name(c, v))); }

const Builtin tpl_tests[] = {
    { "!=", ne, "other", 1 },
    { "<", lt, "other", 1 },
    { "<=", le, "other", 1 },
    { "==", eq, "other", 1 },
    { ">", gt, "other", 1 },
    { ">=", ge, "other", 1 },
    { "boolean", boolean, "", 0 },
    { "callable", callable, "", 0 },
    { "defined", defined, "", 0 },
    { "divisibleby", divisibleby, "num", 1 },
    { "eq", eq, "other", 1 },
    { "equalto", eq, "other", 1 },
    { "escaped", escaped, "", 0 },
    { "even", even, "", 0 },
    { "false", is_false, "", 0 },
    { "filter", filter, "", 0 },
    { "float", is_float, "", 0 },
    { "ge", ge, "other", 1 },
    { "greaterthan", gt, "other", 1 },
    { "gt", gt, "other", 1 },
    { "in", in, "seq", 1 },
    { "integer", integer, "", 0 },
    { "iterable", iterable, "", 0 },
    { "le", le, "other", 1 },
    { "lessthan", lt, "other", 1 },
    { "lower", lower, "", 0 },
    { "lt", lt, "other", 1 },
    { "mapping", mapping, "", 0 },
    { "ne", ne, "other", 1 },
    { "none", none, "", 0 },
    { "number", number, "", 0 },
    { "odd", odd, "", 0 },
    { "sameas", sameas, "other", 1 },
    { "sequence", sequence, "", 0 },
    { "string", string, "", 0 },
    { "test", test, "", 0 },
    { "true", is_true, "", 0 },
    { "undefined", undefined, "", 0 },
    { "upper", upper, "", 0 },
    { NULL, NULL, NULL, 0 },
};
