#!/bin/sh
# A function of sublet: it is started for each call, with the payload on stdin. What it writes to stdout is the answer, what
# it writes to stderr is its log. Any exit status but 0 is an error.
set -eu
payload=$(cat)
# /tmp is this customer's own, and lasts from call to call for as long as its worker does.
echo x >> /tmp/calls
echo "called with ${#payload} characters" >&2
printf 'hello %s, this is call %d: %s\n' "$SUBLET_SUB_TENANT" "$(wc -l < /tmp/calls)" "$payload"
