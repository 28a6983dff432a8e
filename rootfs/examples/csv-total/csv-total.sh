#!/bin/sh
# Example of an `exec` function in shell: a CSV with a header row on stdin, the total of each numeric column on stdout.
#
#     [tenant.acme.function.total]
#     runtime = "exec"
#     layout = "host"
#     dir = "/srv/functions/total"
#     command = ["/bin/sh", "/function/csv-total.sh"]
#
# Answer: a CSV of its own, `column,values,total`. A column is numeric when it has a value and all its values are
# numbers; empty fields count for nothing. Fields may be quoted ("a, ""b"""), but not hold a line break. Totals have up
# to 15 digits. Bad input ends with exit 2 and one line on stderr, the log.
set -eu

# Bytes, not characters, and a point in numbers, whatever the configuration says.
export LC_ALL=C

# By their own names: `awk` itself is a link through /etc/alternatives, which a worker's root may lack.
if command -v mawk >/dev/null; then
    awk=mawk
elif command -v gawk >/dev/null; then
    awk=gawk
elif command -v busybox >/dev/null; then
    awk='busybox awk'
elif command -v original-awk >/dev/null; then
    awk=original-awk
else
    echo "csv-total: no mawk, gawk, busybox or original-awk in this worker's root: install one there" >&2
    exit 1
fi

# $awk is two words for busybox.
exec $awk '
# Not by "/dev/stderr": an awk that does not know the name itself would open the log anew, and a worker may not. And not
# by cat, which a small root may lack: these two are part of every shell.
function fail(text,    tell) {
    tell = "read -r line; printf \"%s\\n\" \"$line\" >&2"
    print "csv-total: " text | tell
    close(tell)
    failed = 1
    exit 2
}

# Splits line into field[1..n]; returns n.
function split_csv(line, field,    n, part) {
    n = 0
    while (1) {
        if (substr(line, 1, 1) == "\"") {
            part = ""
            line = substr(line, 2)
            while (match(line, /"/)) {
                part = part substr(line, 1, RSTART - 1)
                line = substr(line, RSTART + 1)
                if (substr(line, 1, 1) != "\"") break
                part = part "\""
                line = substr(line, 2)
            }
            if (RSTART < 1) fail("line " NR ": a quoted field has no end on its line")
            if (line != "" && substr(line, 1, 1) != ",") fail("line " NR ": text after the end of a quoted field")
        } else if (match(line, /,/)) {
            part = substr(line, 1, RSTART - 1)
            line = substr(line, RSTART)
        } else {
            part = line
            line = ""
        }
        field[++n] = part
        if (line == "") return n
        line = substr(line, 2)
    }
}

function quoted(text) {
    if (text !~ /[",]/) return text
    gsub(/"/, "\"\"", text)
    return "\"" text "\""
}
{
    if (NR == 1) sub(/^\357\273\277/, "")
    sub(/\r$/, "")
    if ($0 == "") next
    n = split_csv($0, field)
    if (!columns) {
        columns = n
        for (i = 1; i <= n; i++) name[i] = field[i]
        next
    }
    if (n != columns) fail("line " NR " has " n " fields, the header has " columns)
    for (i = 1; i <= n; i++) {
        value = field[i]
        gsub(/^[ \t]+|[ \t]+$/, "", value)
        if (value == "") continue
        # Spelt out, because awks differ on "0x10" and "nan", and 1e999 is no number to add to.
        if (value ~ /^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9][0-9]?)?$/) {
            values[i]++
            total[i] += value
        } else {
            is_text[i] = 1
        }
    }
}
END {
    # exit inside a rule comes here too.
    if (failed) exit 2
    if (!columns) fail("the payload is empty: expected a header row")
    for (i = 1; i <= columns; i++) {
        if (!values[i] || is_text[i]) continue
        if (!found++) print "column,values,total"
        printf "%s,%d,%.15g\n", quoted(name[i]), values[i], total[i]
    }
    if (!found) fail("no column holds numbers only")
}'
