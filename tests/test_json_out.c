#include "json_out.h"
#include "common.h"

#include <locale.h>
#include <math.h>

static void expect(MiJson *j, const char *text)
{
    assert_string_equal(j->text->str, text);
    g_string_free(j->text, TRUE);
}

static void commas_stand_between_only(void **state)
{
    MiJson j = mi_json_new();

    (void)state;
    mi_json_open(&j, NULL, '{');
    mi_json_open(&j, "empty", '[');
    mi_json_close(&j, ']');
    mi_json_ints(&j, "ids", (const int32_t[]){ -1, 0, 2147483647 }, 3);
    mi_json_open(&j, "in", '{');
    mi_json_string(&j, "none", NULL);
    mi_json_bool(&j, "yes", true);
    mi_json_close(&j, '}');
    mi_json_int(&j, "big", INT64_MIN);
    mi_json_close(&j, '}');
    expect(&j, "{\"empty\":[],\"ids\":[-1,0,2147483647],\"in\":{\"none\":null,\"yes\":true},"
               "\"big\":-9223372036854775808}");
}

static void escapes_what_json_forbids(void **state)
{
    static const char text[] = "\"\\/\n\t\r\x01\x7f\0\xc3\xa4\xf0\x9f\x98\x80\xff\xc3|\xed\xa0\x80";
    MiJson            j = mi_json_new();

    (void)state;
    mi_json_text(&j, NULL, text, sizeof text - 1);
    expect(&j, "\"\\\"\\\\/\\n\\t\\u000d\\u0001\\u007f\\u0000\xc3\xa4\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd|"
               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void numbers_ignore_the_locale(void **state)
{
    MiJson j = mi_json_new();

    (void)state;
    setlocale(LC_ALL, "de_DE.UTF-8"); /* where it is installed */
    mi_json_open(&j, NULL, '[');
    mi_json_float(&j, NULL, 0.1);
    mi_json_float(&j, NULL, -1e30);
    mi_json_float(&j, NULL, NAN);
    mi_json_float(&j, NULL, INFINITY);
    mi_json_close(&j, ']');
    expect(&j, "[0.1,-1e+30,null,null]");
}

TEST_MAIN(cmocka_unit_test(commas_stand_between_only), cmocka_unit_test(escapes_what_json_forbids),
          cmocka_unit_test(numbers_ignore_the_locale));
