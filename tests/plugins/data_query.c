/* data_query.c - the name of the query, and no function behind it. */
extern const int mi_plugin_query;
const int mi_plugin_query = 42;
