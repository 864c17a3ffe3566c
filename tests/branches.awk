# Of an lcov file the branches of some sources: file, taken/all, the lines where one is never taken.
#   awk -v top=/path/of/the/sources/ -v parsers='core/config core/template_[a-z]*' -f branches.awk coverage.info
BEGIN {
    n = split(parsers, patterns, " ")
    print "parsers: branches taken"
}
/^SF:/ {
    file = substr($0, 4)
    if (index(file, top) == 1)
        file = substr(file, length(top) + 1)
    listed = 0
    for (i = 1; i <= n; i++)
        if (file ~ "^" patterns[i] "[.]c$")
            listed = 1
    taken = all = 0
    missed = last = ""
}
listed && /^BRDA:/ {
    split(substr($0, 6), field, ",")
    all++
    if (field[4] != "-" && field[4] > 0)
        taken++
    else if (field[1] != last)
        missed = missed " " (last = field[1])
}
listed && /^end_of_record/ {
    printf "  %-36s %4d/%-4d %s\n", file, taken, all, missed == "" ? "" : "line" missed
    sum_taken += taken
    sum += all
}
END {
    printf "  %-36s %4d/%-4d %.1f %%\n", "all", sum_taken, sum, sum ? 100 * sum_taken / sum : 0
}
