#!/usr/bin/env python3
"""Writes template_cases.json: small templates with what the real Jinja2 makes of them.

    python3 template_cases.py > template_cases.json       (needs jinja2 >= 3.1)
    python3 template_cases.py FOLDER > cases.json; tests/test_template cases.json

The second form is for a folder of real models' templates, *.jinja, which are not ours to keep here.

The environment is set up as Hugging Face's transformers does it.  A case without `output`
is one that Jinja2 refuses, when it is parsed or when it runs.
"""
import datetime
import functools
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                    extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception

VARS = {
    "n": 7, "z": 0, "neg": -3, "f": 2.5, "t": True, "no": False, "nil": None, "s": "Hello, World", "empty": "",
    "uni": "Grüße, 世界 🎉 ß", "spaces": "  \t padded \n ", "lines": "one\ntwo\r\nthree\n\nfive",
    "quotes": "it's \"so\" \\ \x01 \u00a0 \x7f", "html": "<a href='x'>&\"</a>", "special": "<|im_end|>",
    "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "mixed": [1, "1", 1.0, True, None, [1], {"a": 1}], "el": [],
    "d": {"b": 1, "a": {"x": [1, {"y": "deep"}]}, "items": "an item", "C": None}, "ed": {},
    "people": [{"name": "Zoe", "age": 31, "ok": True, "tags": ["x"]}, {"name": "adam", "age": 9, "ok": False},
               {"name": "Eve", "age": 31, "tags": []}],
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi! "},
                 {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}],
}

T = []


def expressions(text):
    for line in text.strip().split("\n"):
        T.append("{{ " + line.strip() + " }}")


def templates(*all):
    T.extend(all)


# ---- literals, operators ---------------------------------------------------
expressions(r"""
1
1_000
0
00
007
1.5
1e3
1E-7
2.5e+3
1.0
100000000000000000.0
1e16
1e15
123456789012345.6
0.0001
0.00001
-0.0
1/3
'a'
"b"
'a' "b" 'c'
'\n\t\\\'\"\x41\u00e9\U0001F389\101\a\q'
'é世'
true
True
false
none
None
nil
[]
[1, 2.0, 'x', none, true]
[1, 2,]
()
(1,)
(1, 2)
1, 2
{}
{'a': 1, "b": [2]}
{'a': 1,}
{1: 'x', none: 2, 1.5: 3, true: 4}
{'a': {'b': {'c': 1}}}['a']['b'].c
1 + 2
1 - 2 - 3
2 * 3 + 4 * 5
7 / 2
7 // 2
-7 // 2
-7 % 3
7 % -3
7.5 // 2
7.5 % 2
-7.5 % 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
2.0 ** 0.5
n * 2.0
1 + true
'ab' * 3
3 * 'ab'
'ab' * 0
'ab' * -1
[1, 2] * 2
[1] + [2]
(1,) + (2,)
'a' + 'b' + 'c'
'a' ~ 1 ~ none ~ 1.5 ~ true ~ [1]
1 ~ 2 + 3
'a' ~ 'b' * 2
- 5
+ 5
- n
-(n)
-n|abs
(-n)|abs
-5|abs
+t
1 < 2
1 < 2 < 3
1 < 3 < 2
1 == 1.0
1 == true
'a' == 'a'
'a' != 'b'
'a' < 'b'
'B' < 'a'
'é' > 'z'
[1, 2] < [1, 3]
[1, 2] == [1, 2]
[1, 2] == (1, 2)
(1, 2) < (1, 2, 0)
{'a': 1} == {'a': 1.0}
none == none
none == false
missing == missing
missing == none
1 in [1, 2]
'1' in [1, 2]
1.0 in [1, 2]
'b' in 'abc'
'' in 'abc'
'a' in {'a': 1}
'a' not in d
1 not in [1] in [[false]]
not true
not not n
not n == 7
true and false or true
1 and 2
0 and 2
0 or 'x'
'' or none or 'last'
none or missing
1 if true else 2
1 if false else 2
1 if false
(1 if false) is defined
'a' if n > 5 else 'b' if n > 3 else 'c'
'x' if missing else 'y'
10 // 3 * 3 + 10 % 3
1.1 + 2.2
3 * 0.1
1e308 * 10
5 % 3.0
7 == 7 and 'seven' or 'other'
9223372036854775807
9223372036854775807 - 1
-9223372036854775807
1 / 0
1 // 0
1 % 0
1.0 / 0
0 ** -1
1 + 'a'
'a' + 1
none + 1
[1] + (1,)
1 < 'a'
none < 1
missing + 1
'a' + missing
-missing
-'a'
{[1]: 2}
1 in 5
1 in 'abc'
n()
'a'()
missing()
missing.x
missing['x']
missing.x.y
d.nothing
d.nothing.more
nil.foo
nil['foo']
n.foo
n[0]
l[10]
l['x']
l[-1]
l[-4]
l[true]
l[1.0]
d['b']
d.a.x[1].y
d['a']['x'][1]['y']
d['items']
l.0
words.1
s[0]
s[-1]
s[100]
uni[2]
uni[7]
uni[-3]
s[1:4]
s[:3]
s[3:]
s[-3:]
s[:-3]
s[::2]
s[::-1]
s[10:2:-3]
s[5:2]
s[-100:100]
uni[1:-1]
uni[::-1]
uni[7:9]
uni[:4]
uni[-6:-2]
l[::-1]
l[1:]
l[:-1]
l[0:2][1]
(1, 2, 3)[1:]
l[none:2]
l[::0]
range(5)[1:3]
range(5)[-1]
messages[1:][0].content
messages[-1]['role']
messages[0]['role'] == 'system'
l['append'](1)
l.append(4)
d.update({'a': 1})
d.pop('a')
d.setdefault('x', 1)
l.sort()
''.__class__
d.__class__.__mro__
1 +
(1
[1, 2
{'a' 1}
'abc
a b
1 2
@
n ?
'\xZZ'
f(**d)
f(*l)
x is nosuchtest
x | nosuchfilter
n is not
a[1:2:3:4]
""")

# ---- methods ---------------------------------------------------------------
expressions(r"""
spaces.strip()
spaces.lstrip()
spaces.rstrip() ~ '|'
'xxaxx'.strip('x')
'abcba'.strip('ab')
'éaé'.strip('é')
s.split()
s.split(',')
s.split(', ', 1)
'a,b,,c'.split(',')
'a,b,,c'.split(',', 2)
'a,b,,c'.split(',', maxsplit=1)
'  a  b  '.split()
'  a  b  c '.split(none, 1)
''.split()
''.split(',')
'abc'.split('')
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(',')
'a b'.rsplit()
s.split('o')[-1]
'</think>x</think>y'.split('</think>')[-1].lstrip('\n')
lines.splitlines()
lines.splitlines(true)
s.startswith('Hello')
s.startswith(('x', 'H'))
s.startswith('World', 7)
s.startswith('')
s.endswith('World')
s.endswith(('x', 'd'))
s.endswith('xHello, World')
s.upper()
s.lower()
uni.upper()
uni.lower()
'they\'re bill\'s friends'.title()
'hello wORLD'.capitalize()
'éa'.capitalize()
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('', '-')
''.replace('', '-')
uni.replace('ü', 'ue')
'aaa'.replace('aa', 'b')
', '.join(['a', 'b'])
''.join(words)
', '.join(d)
', '.join([1])
s.find('o')
s.find('o', 5)
s.find('zz')
s.rfind('o')
uni.find('世')
s.index('W')
s.index('zz')
s.count('l')
s.count('l', 5)
'aaa'.count('aa')
''.count('')
'abc'.count('')
'abc'.isalpha()
'12'.isdigit()
''.isdigit()
'a1'.isalnum()
' '.isspace()
'ABC'.isupper()
'abc1'.islower()
'42'.zfill(5)
'-42'.zfill(5)
'a'.ljust(3) ~ '|'
'a'.rjust(3)
'ab'.center(5, '*')
'abc'.center(6, '*')
'abc'.center(2)
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'prefix-x'.removeprefix('prefix-')
'x.txt'.removesuffix('.txt')
'{} and {}'.format(1, 'b')
'{1}{0}{1}'.format('a', 'b')
'{x}-{y:>5}'.format(x=1, y='r')
'{:.2f}|{:5d}|{:<5}|{:^7}|{:*>6}|{:+d}|{:,}'.format(3.14159, 42, 'ab', 'mid', 'r', 5, 1234567)
'{:x} {:X} {:#x} {:b} {:o} {:05d} {:%}'.format(255, 255, 255, 5, 8, 42, 0.25)
'{!r} {{}}'.format('q')
'{:e} {:g} {:.3g} {:10.3f}|'.format(12345.678, 0.00001, 1234.5, 2.5)
'{}'.format()
'{'.format(1)
'%s is %d and %.1f' % ('a', 5, 2.55)
'%s' % 'one'
'%5s|%-5s|%05d|%+d|%x|%%' % ('r', 'l', 42, 5, 255)
'%(a)s-%(b)d' % {'a': 'x', 'b': 3}
'%r' % ('q',)
'%d' % 2.9
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%q' % 1
'%e %g' % (1234.5, 0.0001)
d.keys()|list
d.values()|list
ed.items()|list
{'a': 1, 'b': 2}.items()|list
{'a': 1}['items']()|list
d.get('b')
d.get('nope')
d.get('nope', 'fallback')
l.index(1)
l.index(9)
l.count(3)
words.copy()
(1, 2, 1).count(1)
s.nosuchmethod()
messages[0].content.split(' ')[0]
""")

# ---- filters ---------------------------------------------------------------
expressions(r"""
spaces|trim
'xxaxx'|trim('x')
none|trim
5|trim
s|length
uni|length
l|count
d|length
missing|length
5|length
s|upper
5|upper
s|lower
'hello wORLD foo-bar (baz) it\'s'|title
'ÉCOLE été'|title
'hELLO'|capitalize
s|replace('l', 'L')
s|replace('l', 'L', 2)
5|replace('5', 'five')
l|join
l|join(', ')
[1, none, 'x', 2.5]|join('-')
people|join(', ', attribute='name')
'abc'|join('.')
d|join(',')
missing|join(',')
l|first
l|last
''|first
el|first
el|first is defined
'abc'|first
uni|last
d|first
missing|first
missing|default('x')
missing|d('x')
nil|default('x')
nil|default('x', true)
''|default('x', boolean=true)
missing|default
missing.x|default('y')
d.nope|default('y')
5|string + '5'
[1]|string
'abc'|list
d|list
l|list
'12'|int
' 12 '|int
'12.7'|int
'abc'|int
'abc'|int(5)
'abc'|int(default=6)
'ff'|int(0, 16)
'0xff'|int(0, 16)
'1_000'|int
12.9|int
-12.9|int
none|int
true|int
missing|int
l|int
'1e3'|int
'2.5'|float
'abc'|float
'abc'|float(1.5)
5|float
'1e5'|float
none|float
'inf'|float
'nan'|float
'0x10'|float
[3, -3, 2.5, -2.5, true]|map('abs')|list
2.5|round
3.5|round
2.567|round(2)
2.4|round(method='ceil')
2.6|round(0, 'floor')
2.567|round(1, 'floor')
1234|round(-2)
1250.0|round(-2)
5|round
-0.4|round
'x'|round
2|round(1, 'bad')
{'b': 1, 'a': 2}|dictsort
{'b': 1, 'A': 2}|dictsort
{'b': 1, 'A': 2}|dictsort(true)
{'b': 1, 'a': 2}|dictsort(by='value')
{'b': 1, 'a': 2}|dictsort(reverse=true)
{'b': 1, 'a': 2}|items|list
missing|items|list
5|items|list
words|map('upper')|list
words|map('replace', 'a', 'x')|join
people|map(attribute='name')|list
people|map(attribute='tags.0')|list
people|map(attribute='tags', default='none')|list
people|map(attribute='age')|sum
people|sum(attribute='age')
people|selectattr('ok')|map(attribute='name')|list
people|selectattr('ok', 'defined')|map(attribute='name')|list
people|selectattr('age', 'equalto', 31)|map(attribute='name')|join(',')
people|selectattr('age', '>', 10)|list|length
people|rejectattr('age', 'eq', 31)|map(attribute='name')|list
people|rejectattr('ok')|map(attribute='name')|list
messages|selectattr('role', 'equalto', 'user')|list|last
messages|rejectattr('role', 'in', ['system', 'tool'])|list|length
messages|selectattr('role', 'ne', 'user')|map(attribute='role')|join(' ')
l|select('odd')|list
l|select('gt', 1)|list
l|reject('odd')|list
mixed|select|list
mixed|reject|list
mixed|select('string')|list
missing|select|list
missing|map('upper')|list
['a', 'A', 'b', 'a']|unique|list
['a', 'A', 'b', 'a']|unique(true)|list
people|unique(attribute='age')|map(attribute='name')|list
[1, 1.0, true, 2]|unique|list
l|sort
l|sort(true)
words|sort
words|sort(case_sensitive=true)
words|sort(reverse=true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='name', reverse=true)|map(attribute='name')|list
[1, 'a']|sort
l|reverse|list
'abc'|reverse
uni|reverse
l|sum
l|sum(start=10)
[]|sum
['a']|sum
l|min
l|max
words|min
words|max
people|max(attribute='age')
el|min is defined
'a b  c-d e_f'|wordcount
html|escape
html|e
'x'|safe
'a\nb\n\nc'|indent
'a\nb\n\nc'|indent(2, true)
'a\nb\n\nc'|indent(2, blank=true)
'a\nb'|indent('> ', first=true)
'a\nb\n'|indent ~ '|'
''|indent
5|indent
[1, 2, 3, 4, 5]|batch(2)|list
[1, 2, 3]|batch(2, 'x')|list
'%s-%s'|format('a', 1)
'%(x)s'|format(x=5)
d|tojson
mixed|tojson
uni|tojson
quotes|tojson
uni|tojson(ensure_ascii=true)
d|tojson(indent=2)
d|tojson(indent='\t')
{'a': [], 'b': {}, 'c': [[]]}|tojson(indent=4)
d|tojson(indent=0)
{'b': 1, 'a': 2}|tojson(sort_keys=true)
{'b': [1, 2], 'a': 2}|tojson(separators=(',', ':'))
[1, 2]|tojson(separators=(',', ':'), indent=1)
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
(1, 2)|tojson
1.0|tojson
1e100|tojson
'nan'|float|tojson
missing|tojson
[missing]|tojson
'</script>'|tojson
range(3)|tojson
{(1, 2): 3}|tojson
s|upper|lower|trim|length
s|lower|replace('l', '')|first|upper
people|map(attribute='name')|map('lower')|sort|join(' ')
(people|map(attribute='name')|first)
people|map(attribute='name')|length
(words|map('upper')) is iterable
words|map('nosuch')|list
words|map|list
people|selectattr|list
words|select('nosuch')|list
s|trim|bogus
s|replace
s|replace('a')
s|upper(1)
s|default(1, 2, 3)
s|default(nope=1)
""")

# ---- tests -----------------------------------------------------------------
VALUES = ["n", "f", "t", "nil", "s", "l", "d", "missing", "(1, 2)", "range(3)", "d.items()", "namespace()", "'AB'",
          "'ab'", "raise_exception"]
for test in ("defined undefined none string mapping iterable sequence number boolean true false integer float "
             "callable lower upper").split():
    templates(" ".join("{{ %s is %s }}" % (v, test) for v in VALUES))
expressions(r"""
n is odd
n is even
f is odd
s is odd
n is divisibleby 7
n is divisibleby(2)
n is eq 7
n is equalto(7)
n is ne(7)
n is lt 8
n is gt 8
n is ge 7
n is le 6
n is lessthan 8
n is greaterthan 8
'a' is in 'abc'
'a' is in ['b']
n is sameas n
none is sameas none
true is sameas 1
n is not none
n is not defined
not n is defined
n is defined and s is string
n is defined or missing.x
missing is not defined and 'yes'
d.nope is defined
d.b is defined
d.nope.more is defined
messages[0].tools is defined and messages[0].tools is not none
'x' is eq 'x' if true else 'no'
(n is number) is boolean
'upper' is filter
'defined' is test
n is defined is defined
""")

# ---- whitespace ------------------------------------------------------------
templates(
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n\n",
    "a {% if true %} b {% endif %} c",
    "a\n{%- if true -%}\nb\n{%- endif -%}\nc",
    "a\n  {%+ if true %}\n  b\n  {%+ endif +%}\nc",
    "a\n  {% if true +%}\n  b\n{% endif +%}\nc",
    "a  {{- 'x' -}}  b",
    "a \n {{- 'x' }} \n b",
    "a \n {{ 'x' -}} \n b",
    "  {{ 'x' }}\n  {{ 'y' }}\n",
    "{# comment #}\nx",
    "  {# comment #}\nx\n  {#- c -#}  y",
    "a {# multi\nline #} b\n{#+ keep +#}\nc",
    "{##}x{# {{ y }} {% if %} #}z",
    "{% raw %}{{ x }} {% if %}{% endraw %}",
    "a\n  {% raw %}\n  {{ x }}\n  {% endraw %}\nb",
    "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "{% raw %}{% endraw %}{% raw %}x{% endraw %}",
    "\r\na\rb\r\n{{ 'x' }}\r\n",
    "\n\n",
    "",
    "plain { text } with %} and }} and #}",
    "{{ '{{' }}{{ '%}' }}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {'b': 1}}.a.b}}",
    "{%if true%}x{%endif%}{%-if true-%} y {%-endif-%} z",
    "x\n{% set a = 1 %}\n{% set b = 2 -%}\n\n  y{{ a }}{{ b }}",
    "\t {% if true %}\n\tx\n\t {% endif %}\n",
    "x  {% if true %}\ny{% endif %}",
    "{{ 1 }}\n{% if true %}\n{{ 2 }}\n{% endif %}\n{{ 3 }}\n",
    "\u3000{%- if true %}x{% endif %}",
    "a\n{% if false %}\nb\n{% elif n == 7 %}\nc\n{% else %}\nd\n{% endif %}\ne",
)

# ---- statements ------------------------------------------------------------
templates(
    "{% for x in l %}{{ x }},{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}"
    "{{ loop.revindex }}{{ loop.revindex0 }} {% endfor %}",
    "{% for x in words %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
    "{% for x in el %}x{% else %}none{% endfor %}",
    "{% for x in missing %}x{% else %}none{% endfor %}",
    "{% for x in nil %}x{% endfor %}",
    "{% for x in 5 %}x{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% else %}-{% endfor %}",
    "{% for x in l if x > 5 %}{{ x }}{% else %}-{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }} {% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}:{{ v }} {% endfor %}",
    "{% for a, b in [(1, 2), [3, 4], 'xy'] %}{{ a }}{{ b }} {% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for ch in uni %}{{ ch }}|{% endfor %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}",
    "{{ range(3) }} {{ range(1, 10, 3) }} {{ range(3)|list }} {{ range(0) | length }} {{ range(3)[1] }}",
    "{{ range(1000000) }}", "{{ range(1, 2, 0) }}", "{{ range('a') }}",
    "{% for x in l %}{% for y in words %}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}",
    "{% for x in l %}{{ loop.depth }}{% for y in l %}{{ loop.depth0 }}{% endfor %} {% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% break %}",
    "{% for x in l %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in l %}{% set y = x %}{% endfor %}{{ y }}",
    "{% set y = 0 %}{% for x in l %}{{ y }}{% set y = x %}{{ y }} {% endfor %}{{ y }}",
    "{% set ns = namespace(y=0, found=false) %}{% for x in l %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}{{ ns.found }}",
    "{% set ns = namespace() %}{{ ns.x is defined }}{% set ns.x = 1 %}{{ ns.x }}{{ ns.nope }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "{% set d.x = 1 %}", "{% set nope.x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = [1, 2] %}{{ b }}{{ a }}",
    "{% set a, b = [1] %}",
    "{% set x %}block {{ n }}{% endset %}[{{ x }}]{{ x|length }}",
    "{% set x | upper | trim %} block {% endset %}[{{ x }}]",
    "{% set n = n + 1 %}{{ n }}",
    "{% if n %}{% set q = 1 %}{% else %}{% set q = 2 %}{% endif %}{{ q }}",
    "{% set x = 1 if n else 2 %}{{ x }}",
    "{% set messages = messages[1:] %}{{ messages|length }}{{ messages[0].role }}",
    "{% if n > 5 and s %}a{% elif n %}b{% else %}c{% endif %}",
    "{% if missing %}a{% elif nil %}b{% elif el %}c{% elif 0.0 %}d{% elif '' %}e{% elif ed %}f{% else %}g{% endif %}",
    "{% if 'a' %}1{% endif %}{% if [0] %}2{% endif %}{% if range(0) %}3{% endif %}{% if el|map('upper') %}4{% endif %}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(a=5, c=6) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a, b=a ~ '!') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}",
    "{% macro m(x) %}{{ x }}{{ n }}{% endmacro %}{% set n = 1 %}{{ m(2) }}{{ m.name }}",
    "{% macro f(k) %}{% if k > 0 %}{{ k }}{{ f(k - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f() %}{% set n = 99 %}{{ n }}{% endmacro %}{{ f() }}{{ n }}",
    "{% macro f() %}  padded  {% endmacro %}[{{ f()|trim }}]{{ f() is string }}{{ f is callable }}",
    "{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}{% call wrap('b') %}in {{ n }}{% endcall %}",
    "{% macro each(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}"
    "{% call(x, i) each(l) %}{{ i }}:{{ x }} {% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% filter upper %}text {{ s }}{% endfilter %}",
    "{% filter trim|replace('a', 'b') %}  aaa  {% endfilter %}|",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% generation %}a {{ n }}{% endgeneration %}b",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{% set j = joiner('; ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}",
    "{{ dict(a=1, b='x') }}{{ dict({'c': 1}, a=2) }}",
    "{% set it = l|map('string') %}{{ it|first }}{{ it|list }}{{ it|list }}",
    "{% if raise_exception is defined %}{{ raise_exception('no ' ~ n) }}{% endif %}",
    "{% if true %}", "{% endif %}", "{% for %}", "{% for x in %}{% endfor %}", "{% set %}", "{% nosuch %}", "{% %}",
    "{{ }}", "{{ n", "{% if n", "{# open", "{% raw %} open", "{% if true %}{% endfor %}", "{% else %}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% from 'x' import y %}",
    "{% macro %}{% endmacro %}", "{% macro f(a=1, b) %}{% endmacro %}", "{% call n %}{% endcall %}",
    "{% set 1 = 2 %}", "{% for 1 in l %}{% endfor %}", "{% set x = %}", "{{ n | }}", "{{ | upper }}", "{{ n. }}",
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}",
    "{% for m in messages -%}\n  {{ m.role }}\n{%- endfor %}",
    "{{ messages | map(attribute='content') | join('\\n') }}",
    "{{ nope }}|{{ nope.x is defined if nope is defined }}|{{ [nope] }}|{{ {'a': nope} }}",
    "{{ mixed }}", "{{ quotes }}|{{ [quotes] }}|{{ [uni, 'a\"b\\'c', \"it's\"] }}", "{{ d }}", "{{ people }}",
    "{{ [1.0, 1e20, 1e-5, 0.1] }}", "{{ [true, none, ()] }}",
)

# ---- the shapes of well-known chat templates (written for this test) -------
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
          "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
          "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}"
          "{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
          "{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}"
          "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
          "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
          "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
          "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("unknown role") }}
    {%- endif %}
{%- endfor %}
"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
GEMMA = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
         "{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
         "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | "
         "trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")
DEEPSEEK = ("{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
            "{% set ns = namespace(is_first=false, system_prompt='', is_first_sp=true) %}"
            "{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}"
            "{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}"
            "{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}"
            "{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}"
            "{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
            "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
            "{% set content = message['content'] %}{% if '</think>' in content %}"
            "{% set content = content.split('</think>')[-1] %}{% endif %}"
            "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
            "{% if add_generation_prompt %}{{'<｜Assistant｜>'}}{% endif %}")
PHI = ("{% for message in messages %}{% if message['role'] in ['system', 'user', 'assistant'] %}"
       "{{ '<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>' + '\n' }}{% endif %}{% endfor %}"
       "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{%- else -%}{{ eos_token }}{% endif %}")
LLAMA31 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{#- The system message, if there is one, stands first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is defined and tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one tool call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
TOOL = {"type": "function", "function": {"name": "weather", "description": "What it is like <there> & then", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "enum": ["Köln", "O'Hare"]}}, "required": ["city"]}}}
CHATS = [
    VARS["messages"], VARS["messages"][1:], VARS["messages"][1:2],
    [{"role": "user", "content": "I say <|im_end|> and <s>"}],
    [{"role": "user", "content": "w?"}, {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "weather", "arguments": {"city": "Köln"}}}]}, {"role": "tool", "content": "12 °C"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
     {"role": "user", "content": "c"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
]

# ---- every way through the interpreter -------------------------------------
# Arithmetic at its edges.
expressions(r"""
7 % -1
-9223372036854775807 - 1
(-9223372036854775807 - 1) // 1
6 // -3
-6 // -4
3 ** 2 ** 1
3 ** 5
0 ** 0
2.0 ** -1
0.0 ** -1
0.0 ** 2
1e300 * 1e300
-1e300 * 1e300
(1e300 * 1e300) ** 2
7.5 % -2
-7.5 % -2
7.5 % -2.5
-5.0 % 2.5
5.0 - 2
5.0 + 2
-(2.5)
[] + [1]
[1] + []
() + (1,)
[1] * true
true * [1]
true * 'ab'
'ab' * true
[1] * 1.5
1.5 * [1]
none * 2
'a' - 'b'
[1] - [1]
{} + {}
5 % 'a'
[1] % 2
missing % 2
2 % missing
missing * 2
'a' * missing
1 + [1]
'a' ~ 'b' + 'c' ~ 'd'
'a' + 'b' + 1
'a' + 'b' == 'ab'
1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10
""")
# Comparing.
expressions(r"""
1 < 1.5
2.5 >= 2.5
2.5 > 1
(1e300 * 1e300 - 1e300 * 1e300) < 1
(1e300 * 1e300 - 1e300 * 1e300) == 1
1 == (1e300 * 1e300 - 1e300 * 1e300)
(1e300 * 1e300 - 1e300 * 1e300) is ge(1)
'nan'|float < 1
'nan'|float >= 1
'' == ''
'' < 'a'
'a' > ''
'ab' < 'abc'
'abc' > 'ab'
'ab' >= 'ab'
[1] == [1, 2]
[1, 2] == [1, 3]
[[1], [2]] == [[1], [2]]
range(3) == range(3)
range(3) == range(4)
range(3) == [0, 1, 2]
{'a': 1} == {'b': 1}
{'a': 1} == {'a': 2}
{'a': 1} == {'a': 1, 'b': 2}
{'a': 1} == [1]
(1, 2) < (1, 2)
(1, 2) > (1, 1)
[1, 2] <= [1]
[] < [1]
[1] < (1,)
{} < {}
[none] < [none]
[none] < [1]
missing < missing
1 < missing
missing in 'abc'
missing in [1]
missing in d
[1] in [[1]]
[1] in {'a': 1}
{} in {'a': 1}
(1,) in {'a': 1}
1 in range(3)
3 in range(3)
'a' in none
d == d
cycler is cycler
namespace(a=1) == namespace(a=1)
""")
# Items, slices, attributes.
expressions(r"""
none[0]
1.5[0]
d[[1]]
d[{}]
d[none]
d[1.5]
l[none]
l['0']
(1, 2)[5]
range(5)[7]
range(5)['x']
''[0]
''[::-1]
''[1:2]
missing[1:2]
5[1:2]
none[1:]
s[none:none:none]
s[:3:none]
s[1.5:]
s[:'x']
s[missing:]
s[::missing]
s[::100]
s[::-100]
l[5:]
l[-1::-1]
l[2:0:-1]
l[0:2:-1]
l[::9223372036854775807]
l[::-9223372036854775807]
range(10)[::-1]|list
range(10)[2:8:3]|list
range(10)[::-1][1]
(1, 2, 3)[::-1]
loop
range.name
cycler.x
""")
# Text methods.
expressions(r"""
s.strip(none)
s.strip(5)
s.strip(missing)
''.strip()
''.title()
'abc'.removeprefix('')
'abc'.removeprefix('abcd')
'abc'.removeprefix('b')
'abc'.removeprefix(5)
'abc'.removesuffix('')
'abc'.removesuffix('abcd')
'abc'.removesuffix('b')
''.removeprefix('a')
''.removesuffix('a')
'abc'.splitlines(false)
'a\r\nb\rc\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\x1fl\n'.splitlines()
'a\r\nb\rc\n'.splitlines(true)
'a\r'.splitlines()
''.splitlines()
'a'.ljust(3, 'xy')
'a'.ljust(3, '')
'a'.ljust(0)
'a'.center(4)
'ab'.center(5)
'a'.ljust('x')
''.zfill(3)
'+4'.zfill(4)
'a4'.zfill(1)
'a b c'.split(' ', 0)
'a b c'.split(none)
'a b c d e f g h i j k'.split()
'a b c d e f g h i j k'.split(' ')
'a\u00a0b'.split()
' '.split(' ')
'a,b'.split(5)
'a,b,c'.rsplit(',', 0)
'a,b,c'.rsplit('')
'a,b,c'.rsplit(5)
'abab'.rsplit('ab')
'a b'.rsplit(none)
''.rsplit(',')
'abc'.partition('')
'abc'.rpartition('')
'abc'.rpartition('x')
'abc'.rpartition(5)
'abcabc'.find('a', 1)
'abcabc'.find('a', -3)
'abcabc'.find('a', -100)
'abcabc'.find('a', 1, 3)
'abcabc'.find('c', 0, -4)
'abcabc'.find('a', none, none)
'abcabc'.find('', 6)
'abcabc'.find('', 7)
'abcabc'.find('a', 5, 2)
'abcabc'.find('abcabcd')
'abcabc'.find('ca', 0, 3)
'abcabc'.rfind('a', 1)
'abcabc'.rfind('a', 0, 3)
'abcabc'.rfind('x')
'abcabc'.rfind('')
'abcabc'.rfind('a', 5, 2)
'aé世b'.find('b')
'aé世b'.rfind('世')
'aé世b'.index('x')
'abcabc'.count('a', 1)
'abcabc'.count('bc', 0, 2)
'abcabc'.count('', 2, 4)
'abcabc'.count('a', 9)
'abcabc'.count('c', 0, 3)
'abc'.startswith('b', 1)
'abc'.startswith('abcd')
'abc'.startswith('', 9)
'abc'.startswith(())
'abc'.startswith(5)
'abc'.startswith(('x', 5))
'abc'.startswith(['a'])
'abc'.endswith('b', 0, 2)
'abc'.endswith('c', -1)
'a1'.isalpha()
'a '.isalnum()
'aB'.isupper()
'A1'.isupper()
'aB'.islower()
'aǅ'.islower()
'12'.isupper()
'12'.islower()
'٣'.isdigit()
'a'.isspace()
''.isspace()
'ß'.upper()
'ŉ'.upper()
'İ'.lower()
'İ'.upper()
'ÀÉ'.lower()
'a-b'.title()
'a b'|join('', 'x')
'a'.join([1, 'b'])
'a'.join('xyz')
'a'.join(5)
'a'.join(missing)
'aaa'.replace('a', 'b', 0)
'aaa'.replace('a', 'b', -1)
'aaa'.replace('a', 'b', none)
'aaa'.replace('', '-', 2)
'aaa'.replace(1, 'b')
'aaa'.replace('a')
'aaa'.upper(1)
'aaa'.split(sep='a', sep='b')
'aaa'.split(nope=1)
'aaa'.split('a', sep='b')
'aaa'.find()
""")
# Lists, dicts, loops and other objects.
expressions(r"""
[1, 1.0, true].count(1)
[[1]].index([1])
().index(1)
d.get('b', 1)
d.get()
d.get('a', 1, 2)
d.get([1])
{'a': 1}.copy()
{'a': 1, 'a': 2}
{'a': 1, 'b': 2, 'c': 3, 'd': 4, 'e': 5, 'f': 6}['f']
dict(a=1)
dict({'a': 1}, b=2)
dict({'a': 1}, a=2)
dict([1])
dict({}, {})
dict()
namespace({'a': 1}).a
namespace(1)
namespace().x is defined
range(0)|list
range(3, 0)|list
range(3, 0, -1)|list
range(0, 3, -1)|list
range(0, 10, 3)|list
range(10, 0, -3)|list
range(1, 2, 0)
range('a')
range(1.5)
range(none)
range()
range(1, 2, 3, 4)
range(missing)
range(0, missing)
range(true)
joiner()()
joiner('|')()
cycler()
cycler(1, 2).next()
cycler(1, 2).current
cycler(1, 2).reset()
cycler(x=1)
cycler(1, x=2)
cycler(1, 2).nope
raise_exception('no')
raise_exception(5)
raise_exception()
""")
# Filters of text.
expressions(r"""
'xxaxx'|trim(none)
'xxaxx'|trim(5)
'xxaxx'|trim(missing)
'aaa'|replace('a', 'b', none)
'aaa'|replace('a', 'b', 'x')
'aaa'|replace('a', 'b', missing)
'aaa'|replace('a')
5|default('x', true)
0|default('x', true)
0|default('x', false)
nil|default('x', none)
'a\nb'|indent
'a\nb'|indent(2, true)
'a\n\nb'|indent(2, false, true)
'a\n\nb'|indent(2, blank=true)
'a\n\nb'|indent(2)
''|indent(first=true)
'a\nb'|indent('> ')
'a\nb'|indent('> ', true)
5|indent
missing|indent
[1]|indent
'a b_c d-e'|wordcount
''|wordcount
5|wordcount
"<>&'\""|e
''|e
5|e
' '|int
''|int
'_1'|int
'1_'|int
'1__0'|int
'1_0'|int
'x_1'|int
'+12'|int
'-12'|int
'-'|int
'+'|int
'0b11'|int(0, 2)
'0o17'|int(0, 8)
'0X1F'|int(0, 16)
'1F'|int(0, 16)
'0x'|int(7, 16)
'12'|int(0, 3)
'z'|int(0, 36)
'12'|int(base=10)
'9223372036854775807'|int
'-9223372036854775807'|int
'1.'|int
'.5'|int
'-.5'|int
'inf'|int
'nan'|int
'-inf'|int
'infinity'|int
'1e400'|int
'+0x10'|float
'1.5x'|float
'.5'|float
'5.'|float
'.'|float
'-1.5'|float
'+1.5'|float
'-inf'|float
'infinity'|float
'Infinity'|float
'1_0.5'|float
''|float
l|float
missing|float
'x'|float('y')
('nan'|float)|int
('nan'|float)|int(3)
(1e300 * 1e300)|int
(-1e300 * 1e300)|int(3)
'a'|abs
missing|abs
none|abs
2.5|abs
-2.5|abs
-7|abs
1e300|round(2)
1e70|round(2)
(1e300 * 1e300)|round
1.5|round(400)
1.5|round(-400)
-1.5|round(-400)
15|round(-1)
25|round(-1)
-25|round(-1)
35.5|round(-1)
2.675|round(2)
true|round
true|round(-1)
2.5|round('x')
2.5|round(missing)
2.5|round(1, missing)
missing|round
7|round(1, 'ceil')
7.123|round(2, 'ceil')
'"'|tojson
[]|tojson(indent=2)
{}|tojson(indent=2)
[1, {'a': []}]|tojson(indent=2)
[1, {'a': []}]|tojson(indent='--')
[1, {'a': []}]|tojson(indent=0)
[1, 2]|tojson(indent=none)
[1, 2]|tojson(indent=true)
[1, 2]|tojson(separators=(',', ':'))
{'a': 1}|tojson(separators=[' , ', ' : '])
[1, 2]|tojson(separators=none)
[1, 2]|tojson(separators=(',',))
[1, 2]|tojson(separators=(1, 2))
[1, 2]|tojson(separators=missing)
{'b': 1, 'a': 2}|tojson(sort_keys=true)
{'b': 1, 'a': 2}|tojson(sort_keys=false)
{1: 2, 'b': 3}|tojson(sort_keys=true)
uni|tojson(ensure_ascii=true)
uni|tojson(ensure_ascii=false)
"\x01\x1f\x7f\b\f\n\r\t\u2028\U0001F389\\"|tojson
"\x01\x1f\x7f\b\f\n\r\t\u2028\U0001F389\\"|tojson(ensure_ascii=true)
[true, false, none, 1.5, 1e300, -0.0]|tojson
[1e300 * 1e300, -1e300 * 1e300]|tojson
('nan'|float)|tojson
{1.5: 1, true: 2, none: 3, 4: 5, false: 1}|tojson
{(1, 2): 3}|tojson
(1, (2,))|tojson
missing|tojson
range(3)|tojson
[range]|tojson
''|tojson
'%s and %s'|format(1, 'b')
'%(a)s'|format(a=1)
'%s'|format
5|format(1)
""")
# Filters of what can be walked.
expressions(r"""
'abc'|batch(2)|list
[1, 2, 3]|batch(2, 'x')|list
[1, 2, 3]|batch(2, none)|list
[1, 2]|batch(2, 'x')|list
[]|batch(2)|list
[1, 2, 3, 4]|batch(3, 'f')|map('join')|list
people|map(attribute='nope', default='d')|list
people|map(attribute='nope', default=none)|list
people|map(attribute='name', nope=1)|list
people|map(5)|list
people|map('nofilter')|list
people|map(attribute=none)|list
[[1, 2], [3]]|map(attribute=0)|list
[[1, 2], [3]]|map(attribute='0')|list
people|map(attribute='12345678901')|list
[{'a': {'b': 1}}, {'a': {}}]|map(attribute='a.b', default=0)|list
missing|map('upper')|list
[]|map('upper')|list
5|map('upper')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='age', reverse=true)|map(attribute='name')|list
[[2, 'b'], [1, 'a']]|sort(attribute=0)
['b', 'A', 'a', 'B']|sort
['b', 'A', 'a', 'B']|sort(case_sensitive=true)
['b', 'A']|sort(false, true)
[1, 'a']|sort
{'b': 1, 'a': 2}|sort
'bca'|sort
5|sort
missing|dictsort
5|dictsort
d|dictsort(by='x')
d|dictsort(by=5)
missing|items|list
'ab'|first
range(5)|first
range(0)|first
range(0)|last
range(5)|last
''|last
'é'|last
(range(3)|map('string'))|first
([]|map('string'))|first
(range(3)|map('string'))|last
missing|last
[]|last
5|first
5|last
{'a': 1}|last
[1, 2]|reverse|list
'abc'|reverse
''|reverse
(range(3)|map('string'))|reverse|list
range(3)|reverse|list
{'a': 1, 'b': 2}|reverse|list
5|reverse
missing|reverse|list
['a', 'A', 'b']|unique|list
['a', 'A', 'b']|unique(true)|list
people|unique(attribute='age')|map(attribute='name')|list
[[1], [1]]|unique|list
[1, 1.0, true, '1']|unique|list
[3, 1, 2]|min
[3, 1, 2]|max
['b', 'A']|min
['b', 'A']|max
['b', 'A']|max(true)
people|max(attribute='age')
[]|min
[]|min is defined
[1, 'a']|min
missing|min
[1, 2]|sum
[1, 2]|sum(start=10)
[1.5, 2]|sum
people|sum(attribute='age')
['a']|sum
['a']|sum(start='')
[[1], [2]]|sum(start=[])
[]|sum
[1, none]|sum
missing|sum
[0, 1, 2]|select|list
[0, 1, 2]|reject|list
[0, 1, 2]|select('odd')|list
[0, 1, 2]|reject('odd')|list
[1, 2, 3]|select('gt', 1)|list
[1, 2, 3]|select('nope')|list
[1, 2, 3]|select(5)|list
people|selectattr('ok')|map(attribute='name')|list
people|rejectattr('ok')|map(attribute='name')|list
people|selectattr('age', 'eq', 31)|map(attribute='name')|list
people|selectattr|list
people|selectattr('age', 'nope')|list
missing|selectattr('x')|list
d|list
''|list
5|list
none|list
namespace()|list
d.keys()|length
(range(3)|map('string'))|length
range(3)|length
none|length
""")
# Tests.
expressions(r"""
true is true
false is true
1 is true
false is false
true is false
0 is false
1.5 is float
1 is float
1 is integer
true is integer
true is boolean
1 is number
'1' is number
none is number
range is callable
(s.upper) is callable
joiner() is callable
cycler(1) is callable
missing is callable
5 is callable
none is callable
s is sequence
l is sequence
(1,) is sequence
range(3) is sequence
d is sequence
missing is sequence
5 is sequence
s is iterable
l is iterable
(1,) is iterable
range(3) is iterable
d is iterable
d.keys() is iterable
([1]|map('string')) is iterable
missing is iterable
5 is iterable
none is iterable
namespace() is mapping
d is mapping
4 is even
5 is even
5 is odd
4.0 is even
'a' is even
missing is odd
6 is divisibleby 3
7 is divisibleby(3)
6 is divisibleby 0
6 is divisibleby 'a'
6 is divisibleby
1 is lt 2
2 is lt 1
2 is le 2
3 is le 2
3 is gt 2
2 is gt 2
2 is ge 2
3 is ge 2
1 is ge 2
'a' is lt 'b'
1 is lt 'a'
('nan'|float) is le 1
1 is == 1
1 is in [1]
2 is in [1]
1 is sameas 1
1 is sameas true
true is sameas true
none is sameas none
none is sameas false
1 is sameas 2
s is sameas s
'a' is sameas 'b'
1.5 is sameas 1
'abc' is lower
'ABC' is lower
'ABC' is upper
5 is upper
'upper' is filter
'nope' is filter
5 is filter
'odd' is test
'nope' is test
5 is test
1 is not odd
1 is not even
1 is not
1 is defined is defined
l is eq [3, 1, 2]
d is eq {'a': 1}
x is defined or true
x is defined and true
x is undefined else 1
1 if x is defined else 2
""")
# Format strings.
expressions(r"""
'%.2s|%.9s|%3.1s' % ('abc', 'abc', 'abc')
'%.1s' % 'éa'
'% d|% d|%+ d|% +d' % (5, -5, 5, 5)
'%#x|%#X|%#o|%x|%X|%o' % (255, 255, 8, 255, 255, 8)
'%#d' % 5
'%-05d|' % 5
'%5d|%-5d|%05d' % (-42, -42, -42)
'%i|%u|%d' % (1, 2, true)
'%e|%E|%f|%F|%g|%G' % (1.5, 1.5, 1.5, 1.5, 1e10, 1e10)
'%.0f|%.3e|%#.0f|%#g' % (2.5, 12345.678, 2.0, 2.0)
'%5.1f|%-8.2f|%+.1f|%08.3f' % (3.14159, 2.5, 1.0, -2.5)
'%f' % (1e300 * 1e300)
'%f|%5f|%05f' % (-1e300 * 1e300, 1e300 * 1e300, 1e300 * 1e300)
'%f' % ('nan'|float)
'%g' % ('-nan'|float)
'%d' % 'a'
'%x' % 'a'
'%x' % 1.5
'%d' % none
'%d' % missing
'%f' % 'a'
'%s' % missing
'%' % 1
'%5' % 1
'%()s' % {'': 1}
'%(a' % {'a': 1}
'%(a)s' % 5
'%(b)s' % {'a': 1}
'x' % 1
'x' % ()
'x' % []
'x' % {'a': 1}
'x' % (1,)
'%s' % ()
'%s' % [1, 2]
'%s %s' % (1, 2)
'%s' % {'a': 1}
'%r|%r' % ('a', 1)
'%%' % ()
'%2147483648d' % 1
'{:5}|{:<5}|{:>5}|{:^5}|{:^6}' .format('ab', 'ab', 'ab', 'ab', 'ab')
'{:*^9}|{:é>5}|{:0<5}' .format('mid', 'r', 1)
'{:.2}|{:.9}|{:s}' .format('abc', 'abc', 'abc')
'{:=5}' .format('a')
'{:d}' .format('a')
'{:s}' .format(5)
'{:f}' .format('a')
'{:5}|{:<5}|{:^5}|{:=5}|{:=+5}' .format(42, 42, 42, 42, 42)
'{:+}|{:-}|{: }|{:+}|{: }' .format(5, 5, 5, -5, -5)
'{:05}|{:+05d}|{:05d}' .format(42, 42, -42)
'{:,}|{:,}|{:,}|{:,.2f}|{:,}' .format(1, 123, 1234, 1234567.891, 12345678901234)
'{:#x}|{:#o}|{:#b}|{:#X}|{:#d}' .format(255, 8, 5, 255, 5)
'{:x}|{:o}|{:b}' .format(-255, -8, -5)
'{:%}|{:.1%}|{:%}' .format(0.5, 0.256, 2)
'{}|{:}|{:5}|{:.3}' .format(1.5, 1.5, 1.5, 3.14159)
'{:.3}' .format(1234567.0)
'{:.10}' .format(2.0)
'{:g}|{:G}|{:e}|{:E}|{:F}' .format(1.5, 1e20, 1.5, 1.5, 1.5)
'{:#g}|{:#.0f}' .format(1.0, 2.0)
'{:f}|{:F}|{:5}|{:E}' .format(f * 1e308, f * 1e308, s|float * f * 0, -f * 1e308)
'{:d}' .format(1.5)
'{:x}' .format(1.5)
'{:b}' .format(1.5)
'{:5}' .format(true)
'{:d}|{:x}' .format(true, false)
'{:5}' .format(none)
'{:5}' .format([1])
'{}' .format([1])
'{:q}' .format(1)
'{:5d5}' .format(1)
'{:5dx}' .format(1)
'{:.d}' .format(1)
'{1}' .format(1)
'{a}' .format(1)
'{a}{b}' .format(a=1, b=2)
'{!s}|{!r}' .format('a', 'a')
'{!x}' .format('a')
'{a!r:>5}' .format(a='x')
'{!}' .format('a')
'}' .format(1)
'}}' .format(1)
'{{}}' .format(1)
'a}b' .format(1)
'{:99999999999}' .format(1)
'' .format(1)
'{:' .format(1)
""")
# What is written down.
expressions(r"""
'\x7f\x85\u00a0\u200b\ue000\U000e0001\ufffe\u2028'|string|list
['\x7f\x85\u00a0\u200b\ue000\U000e0001\ufffe\u2028\t\r\n']
["it's", '"', "'\""]
[1e300 * 1e300, -1e300 * 1e300]
['nan'|float]
1e300 * 1e300
-1e300 * 1e300
'nan'|float
1e22
1.5e-7
123456789012345680.0
[1.5, 0.1, 1e100]
0.1 + 0.2
5e-324
1.7976931348623157e308
(1,)
[(1, 2), (), (1,)]
{1: {2: 3}}
{}
range(3)
range(1, 3)
none ~ true ~ false
""")
# The lexer.
expressions(r"""
1_2_3
1_
1__2
1._5
1.5_5
1.5e1_0
1e
1e+
1E5
1e-
01
0_0
'\101\7\18\x4a\u004a\U0000004a'
'\x4'
'\u12'
'\U00110000'
'\400'
'\N{DASH}'
'\ '
'a\\'
'a' 'b' "c"
"it's"
)
]
}
(]
[)
{'a': 1)
1 ! 2
1 & 2
$
a.1.b
a.é
a..b
a.
a[
a[]
a()()
(1)(2)
-
+
not
1 +
1 if
1 if 2 else
1 in
1 not 2
1 not in
a is
a|
a|b.c
[1, 2
{'a':
(1,
(,)
[,]
{,}
{'a'}
f(a=)
f(a=1, 2)
f(a=1, a=2)
f(,)
f(1,)
range(3,)|list
1 == 2 == 3
1 < 2 > 1
1,
1, 2,
(1, 2,)
'a'.upper.lower
1 if 0 else 2 if 0 else 3
not 1 in [1]
1 is number and 2 is number
'a' is string is string
""")
templates(
    "{{ 1 }}\r\n{{ 2 }}\r{{ 3 }}\n", "a\r", "\r\n", "", "\n", "{", "{{", "{%", "}}", "{{ 1", "{% if", "{# x",
    "{{ 'a }}", "{{ \"a\\\" }}", "{#- x -#} b", "a {#- x -#} b", "a {#+ x +#}\n b", "a {# x #}\n b", "{#-#}a", "{##}",
    "{% raw %}{{ x }}{% endraw %}", "{%- raw -%} {{ x }} {%- endraw -%} y", "a {% raw +%}\nx{% endraw %}",
    "{% raw %}x", "{% raw %}{% endra %}{% endraw %}", "{% raw %}{% x %}{% endraw %}\nb", "{% raw x %}{% endraw %}",
    "a\n  {%- raw %}b{% endraw +%}\nc", "a {%+ raw %}b{%+ endraw %}c", "x{% raw %}{% endraw %}y",
    "  {% if 1 %}\n  a\n  {% endif %}\n", "  {%+ if 1 %}\n  a\n  {%+ endif %}\n", "a  {% if 1 -%}  b  {%- endif %}  c",
    "a\u00a0{%- if 1 -%}\u00a0b{% endif %}", "{{- 1 -}}", " {{- 1 -}} ", " {{+ 1 +}} ", "a\n{{- 1 }}\n", "{{ 1 -}}\n\nb",
    "{% if 1 +%}\na{% endif %}", "{% if 1 %}\n\na{% endif %}", "\n  {% set x = 1 %}\n{{ x }}", "{{ {} }}", "{{ {'a': {}} }}",
    "{{ '}}' }}", "{{ '%}' }}", "{% set x = '%}' %}{{ x }}", "{{ ( }}", "{% if ( %}",
    "{{ 'a\\\nb' }}", "{{ 'a\nb' }}", "{{ 1\n+ 2 }}", "{{ '\\\\' }}",
    # statements
    "{% %}", "{% 5 %}", "{% nope %}", "{% if %}{% endif %}", "{% if 1 %}", "{% endif %}", "{% else %}",
    "{% if 0 %}a{% elif 0 %}b{% elif 1 %}c{% else %}d{% endif %}", "{% if 0 %}a{% else %}b{% elif 1 %}c{% endif %}",
    "{% if 1 %}{% endif x %}", "{% for %}{% endfor %}", "{% for x %}{% endfor %}", "{% for x in %}{% endfor %}",
    "{% for 5 in l %}{% endfor %}", "{% for x.y in l %}{% endfor %}", 
    "{% for a, b in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}", "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for (a, b,) in [(1, 2)] %}{{ a }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [missing] %}{% endfor %}",
    "{% for x in 5 %}{% endfor %}", "{% for x in missing %}a{% else %}b{% endfor %}", "{% for x in none %}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}", "{% for x in l if x > 1 else %}{% endfor %}",
    "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}"
    "{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for x in l %}{{ loop.nope }}{% endfor %}", "{% for x in l %}{{ loop.nope.x }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle(a=1) }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop|length }}{{ loop is iterable }}{{ loop is callable }}{{ loop['index'] }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{{ loop.depth }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in l %}{% break %}{% endfor %}a", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% break %}", "{% continue %}", "{% macro m() %}{% break %}{% endmacro %}",
    "{% for x in l %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% set y = x %}{% endfor %}{{ y is defined }}", "{% for x in 'é世' %}{{ x }},{% endfor %}",
    "{% for k in {'a': 1} %}{{ k }}{% endfor %}", "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% set x %}a{% endset %}{{ x }}", "{% set x = 1, 2 %}{{ x }}", "{% set x, y = 1, 2 %}{{ x }}{{ y }}",
    "{% set (x, y) = (1, 2) %}{{ y }}", "{% set x, y = 1 %}", "{% set x.y = 1 %}", "{% set 5 = 1 %}",
    "{% set d.x = 1 %}", "{% set x = %}", "{% set %}", "{% set x | upper %}a{% endset %}{{ x }}",
    "{% set x|replace('a', 'b')|upper %}aab{% endset %}{{ x }}", "{% set x, y %}a{% endset %}",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{% set ns.b = 3 %}{{ ns.a }}{{ ns.b }}{{ ns }}",
    "{% set ns = namespace() %}{% for x in l %}{% set ns.last = x %}{% endfor %}{{ ns.last }}", "{% set ns.a = 2 %}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=1, a=5) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro %}{% endmacro %}",
    "{% macro m %}{% endmacro %}", "{% macro m(5) %}{% endmacro %}", "{% macro m(a=1, b) %}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{{ m.name }}{{ m.nope is defined }}{{ m is callable }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}",
    "{% call 5 %}{% endcall %}", "{% call m %}{% endcall %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter replace('a', 'b')|upper %}aab{% endfilter %}", "{% filter nope %}{% endfilter %}",
    "{% filter %}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% with %}x{% endwith %}", "{% with a = 1 %}{% with b = a %}{{ b }}{% endwith %}{% endwith %}", "{% with a %}{% endwith %}",
    "{% generation %}x{% endgeneration %}", "{% generation x %}{% endgeneration %}", "{% include 'x' %}", "{% import 'x' as y %}",
    "{% extends 'x' %}", "{% do 1 %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}",
    "{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}", "{% set j = joiner() %}{{ j() }}{{ j() }}",
    "{% set m = l|map('string') %}{{ m|first }}{{ m|first }}{{ m|list }}{{ m|list }}",
    "{% set g = [1, 2]|select %}{{ g|list }}{{ g|first is defined }}",
    "{% if x is defined %}a{% elif y is not defined %}b{% endif %}", "{{ x.y if x is defined else 'n' }}",
    "{% for m in messages %}{% if loop.first and m.role != 'user' %}{{ raise_exception('first') }}{% endif %}{% endfor %}",
)

# ---- what is left ----------------------------------------------------------
expressions(r"""
7.5 / 2
7.5 * 2
f ** 1000
(1, 2) * 2
(f * 1e308 - f * 1e308) ** 2
2 ** (f * 1e308 - f * 1e308)
(f * 1e308) ** 2
2.0 ** (f * 1e308)
10.0 ** n ** 3
1 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
'a' 'b' 5
range(n if t else 1)|list
l.'x'
'a'|upper()()
1 not x
'0f'|int(0, 16)
'01'|float
'0.5'|float
(f * 1e308)|round(0, 'ceil')
'{:,.100f}'.format(f * 4e307)
'{:#}'.format(5)
'{:<}'.format('a')
'{:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}'.format(1)
'{:00000000000000000000000000000000000000000000000000001s}'.format(1)
'{ab}'.format(ab=1)
'{aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}{}'.format()
01111111111111111111111111111111111111111111111111111111111
people|map(attribute='')|list
people|map(attribute='name.')|list
words|map('replace', old='a', new='b')|list
words|map('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')|list
words|map('')|list
'' is filter
['\x01a', '\x0ea', '\x1ca', '\x1fa', '\x85a', '\u3000a', 'a\x1b']|map('trim')|list
'a\tb'.splitlines()
([]|first) + 1
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa + 1
d.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa + 1
raise_exception('aaaaaaaaaaaaaaaaaaaaaaaa' * 100)
nil == none
""")
templates(
    "{% for x in [] %}a{% endfor %}b", "{% set x = 1, %}{{ x }}", "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle(1, a=1) }}{% endfor %}", "{{ 1e", "{{ 1e+", "{% for x, in [(1,)] %}{{ x }}{% endfor %}",
    "{% set x, = (1,) %}{{ x }}", "{% for x in 1, in l %}{% endfor %}",
)


@functools.cache
def compiled(template):
    return env.from_string(template)


def expected(template, variables):
    try:
        return {"output": compiled(template).render(**variables)}
    except Exception as e:
        return {"refused": type(e).__name__}


CALL = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "n": 1.5}}}
LONG_CHATS = CHATS + [
    [{"role": "system", "content": "S"}, {"role": "user", "content": "q"},
     {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]},
     {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": "{\"t\": 12}"},
     {"role": "assistant", "content": "12", "reasoning_content": "so"}, {"role": "user", "content": "thanks"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
     {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": "a"},
     {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": "b"}],
    [{"role": "user", "content": [{"type": "text", "text": "part 1"}, {"type": "text", "text": "part 2"}]}],
    [{"role": "developer", "content": "D"}, {"role": "user", "content": "x\n\ny "},
     {"role": "assistant", "content": "partial"}],
]


def folder_cases(folder):
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(0).strftime(f)
    for file in sorted(pathlib.Path(folder).glob("*.jinja")):
        template = file.read_text()
        for i, chat in enumerate(LONG_CHATS):
            for tools in (None, [TOOL, TOOL]):
                for extra in ({}, {"enable_thinking": False}):
                    variables = {"messages": chat, "tools": tools, "documents": None, "bos_token": "<s>",
                                 "eos_token": "</s>", "add_generation_prompt": i % 2 == 0, **extra}
                    yield {"name": f"{file.name}/{i}", "template": template, "vars": variables,
                           **expected(template, variables)}


if len(sys.argv) > 1:
    json.dump({"vars": VARS, "cases": list(folder_cases(sys.argv[1]))}, sys.stdout)
    sys.exit()
cases = [{"template": t, **expected(t, VARS)} for t in T]
for name in "CHATML LLAMA2 MISTRAL ZEPHYR GEMMA DEEPSEEK PHI LLAMA31".split():
    for i, chat in enumerate(CHATS):
        variables = {"messages": chat, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": i % 2 == 0}
        if i in (0, 4):
            variables["tools"] = [TOOL, TOOL]
        cases.append({"name": f"{name}/{i}", "template": globals()[name], "vars": variables,
                      **expected(globals()[name], variables)})
json.dump({"vars": VARS, "cases": cases}, sys.stdout, indent=0, ensure_ascii=True)
print()
