#!/bin/sh
# An exec function: text in, its ten most frequent words of four letters and more out, one "count word" per line.
set -eu
tr -cs '[:alpha:]' '\n' | tr '[:upper:]' '[:lower:]' | grep -E '^.{4,}$' | sort | uniq -c | sort -k1,1nr -k2 | head -n 10 |
    while read -r count word; do
        printf '%s %s\n' "$count" "$word"
    done
