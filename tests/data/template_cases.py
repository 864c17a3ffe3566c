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
