/* The one-pass reader of JSON takes what jansson takes, and gives what jansson gives. */
#include "../plugins/formats/json_scan.h"

#include <glib.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static MiJson reader(const char *text) { return (MiJson){ text, text, text + strlen(text), NULL }; }

/* Nothing is left but blanks. */
static bool at_end(MiJson *j) { return !j->wrong && !mi_json_peek(j) && j->at == j->end; }

static void strings_are_jansson_s(void **state)
{
    static const char *const texts[] = {
        "\"\"", "\"plain\"", " \r\n\t\"blanks\" ", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"a\\u0041b\\u00e9c\\u20acd\"",
        "\"\\ud83d\\ude00\"", "\"\\uD83D\\uDE00\"", "\"\\udbff\\udfff\"", "\"\\ud800\"", "\"\\ud800x\"", "\"\\ud800\\n12345\"",
        "\"\\ud800\\u0041\"", "\"\\ud800\\ud800\"", "\"\\ud800\\ue000\"", "\"\\ud800\\uzzzz\"", "\"\\udc00\"", "\"\\udfff\"",
        "\"\\ue000\"", "\"\\ud7ff\"", "\"\\u00g0\"", "\"\\u12\"", "\"\\u12", "\"\\", "\"\\q\"", "\"\\a\"", "\"open",
        "\"open\\n", "\"tab\there\"", "\"x\\n\ty\"", "\"\xc3\xa9\xf0\x9f\x98\x80\\t\xc3\xa9\"", "x", "", "5",
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        json_error_t     why;
        json_t          *wanted = json_loads(texts[i], JSON_DECODE_ANY, &why);
        g_autofree char *buffer = g_malloc(strlen(texts[i]) + 1);
        char            *room = buffer;
        MiJson           j = reader(texts[i]);
        MiJsonText       got;

        const bool ok = mi_json_string(&j, &room, &got) && at_end(&j);
        if (ok != json_is_string(wanted))
            fail_msg("%s: jansson says %s, the scanner %s", texts[i], wanted ? "a string" : why.text, ok ? "too" : j.wrong);
        if (ok) {
            assert_int_equal(got.len, json_string_length(wanted));
            assert_memory_equal(got.text, json_string_value(wanted), got.len);
        }
        json_decref(wanted);
    }
}

static void numbers_are_jansson_s(void **state)
{
    static const char *const texts[] = {
        "0", "-1", "42", " \r7 ", "9223372036854775806", "9223372036854775807", "-9223372036854775807",
        "-9223372036854775808", "9223372036854775808", "99999999999999999999", "1.5", "-0.25e-3", "1e5", "1E+5", "1e", "-",
        "--1", "+1", ".5", "0x10", "1x", "nan", "NaN", "-Infinity", "true", "\"5\"", "", "1_0", "-a",
        "0.1000000000000000055511151231257827021181583404541015625",
        "1000000000000000000000000000000000000000000000000000000000000000000000",
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        json_t *wanted = json_loads(texts[i], JSON_DECODE_ANY, NULL);
        MiJson  whole = reader(texts[i]), real = reader(texts[i]);
        int64_t n = 0;
        double  x = 0;

        /* The ends of int64_t are what an overflow gives: nobody needs them. */
        const bool is_end = strstr(texts[i], "922337203685477580") && !strchr("6", texts[i][strlen(texts[i]) - 1]) &&
                            strcmp(texts[i], "-9223372036854775807") != 0;
        assert_int_equal(mi_json_int(&whole, &n) && at_end(&whole), json_is_integer(wanted) && !is_end);
        if (json_is_integer(wanted) && !is_end)
            assert_true(n == json_integer_value(wanted));
        const bool ok = mi_json_real(&real, &x) && at_end(&real);
        assert_true(ok || !wanted || !json_is_number(wanted));
        if (ok && wanted)
            assert_true(x == json_number_value(wanted));
        json_decref(wanted);
    }
}

/* A value is left out up to where jansson says it ends. */
static void values_are_skipped_whole(void **state)
{
    static const struct { const char *text, *value; } cases[] = {
        { "1,", "1" }, { "\"a\\\"]\",", "\"a\\\"]\"" }, { "[1,[2,{\"a\":\"]\"}]]]", "[1,[2,{\"a\":\"]\"}]]" },
        { "{\"a\":{}}}", "{\"a\":{}}" }, { "true}", "true" }, { "null]", "null" }, { "[]", "[]" }, { "{} ,", "{}" },
        { "-1.5e3", "-1.5e3" },
    };
    static const struct { const char *text, *wrong; } bad[] = {
        { "", "a value" }, { "  ", "a value" }, { ",", "a value" }, { "}", "a value" }, { "]", "a value" },
        { "[1", "a closing bracket" }, { "{\"a\":[1}", "a closing bracket" }, { "\"open", "the end of a string" },
        { "\"", "the end of a string" }, { "\"a\\", "the end of a string" }, { "[\"a", "a closing bracket" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        MiJson     j = reader(cases[i].text);
        MiJsonText got;
        assert_true(mi_json_skip(&j, &got));
        if (!mi_json_is(&got, cases[i].value))
            fail_msg("%s: skipped %.*s", cases[i].text, (int)got.len, got.text);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        MiJson     j = reader(bad[i].text);
        MiJsonText got;
        assert_false(mi_json_skip(&j, &got));
        assert_string_equal(j.wrong, bad[i].wrong);
    }
}

/* The first error stays, and nothing is read behind it. */
static void an_error_is_the_last_thing_read(void **state)
{
    char        bytes[8], *room = bytes;
    MiJson      j = reader("5");
    MiJsonText  text;
    int64_t     n;
    double      x;
    size_t      count = 0;

    (void)state;
    assert_false(mi_json_open(&j, '{'));
    assert_string_equal(j.wrong, "an object");
    assert_false(mi_json_open(&j, '['));
    assert_false(mi_json_more(&j, ']', &count));
    assert_false(mi_json_string(&j, &room, &text));
    assert_false(mi_json_key(&j, &room, &text));
    assert_false(mi_json_int(&j, &n));
    assert_false(mi_json_real(&j, &x));
    assert_false(mi_json_skip(&j, &text));
    assert_string_equal(j.wrong, "an object");
    assert_ptr_equal(j.at, j.start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_jansson_s), cmocka_unit_test(numbers_are_jansson_s),
        cmocka_unit_test(values_are_skipped_whole), cmocka_unit_test(an_error_is_the_last_thing_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
