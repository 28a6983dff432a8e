#!/bin/sh
# An exec function that remembers: what one call writes to /tmp is there for the next call of the same sub-tenant, and for
# nobody else. It also shows what a worker can see, and what happens to one that takes too much memory.
#
#   remember KEY VALUE    recall KEY    files    peek PATH    processes    bomb
set -eu
read -r verb first second || true
case ${verb:-} in
remember)
    printf '%s' "$second" > "/tmp/note-$first"
    printf 'remembered %s for %s' "$first" "$SUBLET_SUB_TENANT"
    ;;
recall)
    if [ -e "/tmp/note-$first" ]; then cat "/tmp/note-$first"; else printf '(nothing)'; fi
    ;;
files) ls -A /tmp ;;
peek) cat "$first" ;;
processes)
    for dir in /proc/[0-9]*; do
        printf '%s %s\n' "${dir#/proc/}" "$(tr '\0' ' ' < "$dir/cmdline")"
    done
    ;;
bomb)
    # tail keeps a line until it ends; this one never does.
    head -c 1000000000 /dev/zero | tail
    ;;
*)
    echo "unknown verb '${verb:-}': remember, recall, files, peek, processes or bomb" >&2
    exit 2
    ;;
esac
