/* hostile_templates.h - templates that want too much: `head`, then `unit` [count] times, then `tail`. */
#ifndef TESTS_HOSTILE_TEMPLATES_H
#define TESTS_HOSTILE_TEMPLATES_H

#include <glib.h>

typedef struct {
    const char *head, *unit;
    int         count;
    const char *tail;
    const char *words; /* of the error */
} HostileTemplate;

#define LOOPS "{% for a in range(100000) %}{% for b in range(100000) %}"
#define ENDS "{% endfor %}{% endfor %}"

static const HostileTemplate hostile_templates[] = {
    /* loops and ranges */
    {"{{ range(1000000000) }}", "", 0, "", "range"},
    {"{% for i in range(10 ** 9) %}x{% endfor %}", "", 0, "", "range"},
    {"{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807)|list|length }}"
     "{{ range(9223372036854775807)|length }}",
     "", 0, "", "range"},
    {LOOPS ENDS, "", 0, "", "more than"},
    {LOOPS "x" ENDS, "", 0, "", "more than"},
    {LOOPS "{% set x = a %}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ a * b }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ [a] * 1000 }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ 'x' * 100000 }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s|upper }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s[::-1] }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s[5000] }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ u[50000] }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ 'zz' in s }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s == s ~ 'x' }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s.split('x')|length }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s.strip('abcdefghijklmnopqrstuvwxyz') }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s|tojson }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ range(100000)|list|sort }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s.rfind('ab') }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s|wordcount }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ strftime_now('%Y') }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ s|int }}{{ '1' * 399|int }}" ENDS, "", 0, "", "more than"},
    {LOOPS "{{ '%.100f' % 1e300 }}" ENDS, "", 0, "", "more than"},
    {"{% for a in range(100000) if a in range(100000) %}x{% endfor %}", "", 0, "", ""},
    {"{{ range(100000)|list|unique|list|length }}", "", 0, "", "steps"},
    {"{{ range(100000)|map('string')|sort|length }}{{ range(100000)|sort(reverse=true)|length }}", "", 0, "",
     "more than"},
    {"{% set ns = namespace(a=0) %}" LOOPS "{% set ns.a = ns.a + 1 %}" ENDS, "", 0, "", "more than"},
    {"{% for a in range(2) %}{% for c in s %}x{{ c }}{% endfor %}{% endfor %}", "", 0, "", "pieces of text"},
    /* things that double */
    {"{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "", 0, "",
     "MiB"},
    {"{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x * 2 %}{% endfor %}", "", 0, "", "MiB"},
    {"{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "", 0, "",
     "MiB"},
    {"{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('a', 'aa') %}{% endfor %}", "",
     0, "", ""},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "", 0, "",
     "MiB"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}", "",
     0, "", ""},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == "
     "[ns.x] }}"
     "{{ ns.x|tojson|length }}",
     "", 0, "", ""},
    {"{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x|list|join(ns.x) %}{% endfor %}"
     "{{ 'ab'|list|join('y' * 99999999) }}",
     "", 0, "", "MiB"},
    {"{{ 'x' * 1000000000 }}", "", 0, "", "MiB"},
    {"{{ [0] * 1000000000000 }}", "", 0, "", "MiB"},
    {"{{ [] * 9223372036854775807 }}{{ 'x' * 9223372036854775807 }}", "", 0, "", "MiB"},
    {"{{ 'x'|indent(9223372036854775807, true) }}", "", 0, "", "MiB"},
    {"{{ 'x'.ljust(9223372036854775807) }}", "", 0, "", ""},
    {"{{ 'x'.zfill(-9223372036854775807) }}{{ 'x'.center(4611686018427387904) }}", "", 0, "", ""},
    {"{{ '%999999999d' % 1 }}", "", 0, "", "width"},
    {"{{ '{:999999999}'.format(1) }}", "", 0, "", "width"},
    {"{{ '%.999999999f' % 1 }}", "", 0, "", "width"},
    {"{{ [1]|batch(1000000000, 0)|list }}", "", 0, "", "MiB"},
    {"{{ 10 ** 100 }}", "", 0, "", "64 bits"},
    {"{{ 2 ** 62 * 2 }}", "", 0, "", "64 bits"},
    {"{{ (-9223372036854775807 - 1) // -1 }}", "", 0, "", "64 bits"},
    {"{{ -(-9223372036854775807 - 1) }}", "", 0, "", "64 bits"},
    {"{{ 3000000000 ** 3 }}", "", 0, "", "64 bits"},
    {"{{ 12345678901234567890 }}", "", 0, "", "64 bits"},
    {"{{ 9223372036854775808 }}", "", 0, "", "64 bits"},
    {"{{ '99999999999999999999'|int }}", "", 0, "", "64 bits"},
    {"{{ '-9223372036854775809'|int }}", "", 0, "", "64 bits"},
    {"{{ '9223372036854775808'|int }}", "", 0, "", "64 bits"},
    {"{{ ", "1", 500, " }}", "bad number"},
    {"{{ (-8.0) ** 0.5 }}", "", 0, "", "no real number"},
    /* depth, in the source and when run */
    {"", "{%if 1%}", 100000, "", "deep"},
    {"", "{%for a in b%}", 70000, "", "deep"},
    {"{{ ", "(", 100000, "", "deep"},
    {"{{ ", "[", 100000, "", "deep"},
    {"{{ ", "{1:", 100000, "", "deep"},
    {"{{ ", "not ", 100000, "1 }}", "deep"},
    {"{{ ", "-", 100000, "1 }}", "deep"},
    {"{{ 1", "|abs", 100000, " }}", "row"},
    {"{{ a", ".b", 100000, " }}", "row"},
    {"{{ a", "[0]", 100000, " }}", "row"},
    {"{% filter upper", "|upper", 1000, " %}{% endfilter %}", "row"},
    {"{{ a", " if a else b", 80000, " }}", "deep"},
    {"{{ 'a'", " if a", 100000, " }}", "deep"},
    {"", "{%macro m()%}", 70000, "", "deep"},
    {"", "{%set x%}", 100000, "", "deep"},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "", 0, "", "deep"},
    {"{% macro m(a=m()) %}{% endmacro %}{{ m() }}", "", 0, "", "deep"},
    {"{% macro m() %}{{ caller() }}{% call m() %}x{% endcall %}{% endmacro %}{% call m() %}y{% endcall %}", "", 0, "",
     "deep"},
    {"{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
     "{% endmacro %}{{ f(40) }}",
     "", 0, "", "more than"},
    {"{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "", 0,
     "", "deep"},
    {"{% set ns = namespace(x=[], y=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}"
     "{% endfor %}{{ ns.x == ns.y }}",
     "", 0, "", "deep"},
    {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "", 0, "", "deep"},
    /* size of the source, and what is not there */
    {"", "x", 1 << 21, "", "limit"},
    {"{{ {", "'k': 1, ", 100000, "} }}", ""},
    {"{{ 1", " + 1", 200000, " }}{{ nope.x }}", ""},
    {"", "{% set a = 1 %}", 60000, "{{ nope.x }}", ""},
    {"", "{{ nope }}", 90000, "{{ nope.x }}", ""},
    {"{{ '", "a", 1 << 19, "'.x.y }}", "has no"},
    {"{{ \"", "\\x41", 200000, "\".x.y }}", "has no"},
    {"{{ ''.__class__.__mro__ }}", "", 0, "", "has no"},
    {"{{ s.__init__.__globals__ }}", "", 0, "", "has no"},
    {"{{ namespace.__init__ }}{{ self._TemplateReference__context.x }}", "", 0, "", ""},
    {"{% include '/etc/passwd' %}", "", 0, "", "include"},
    {"{% import 'os' as os %}", "", 0, "", "import"},
    {"{% from 'os' import system %}", "", 0, "", "from"},
    {"{% extends '../x' %}", "", 0, "", "extends"},
    {"{% for x in s recursive %}{{ loop(x) }}{% endfor %}", "", 0, "", "recursive"},
    {"\xff\xfe", "", 0, "", "UTF-8"},
};

static inline GString *hostile_source(const HostileTemplate *h)
{
    GString *s = g_string_new(h->head);

    for (int i = 0; i < h->count; i++)
        g_string_append(s, h->unit);
    return g_string_append(s, h->tail);
}

#endif
