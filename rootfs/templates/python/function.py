"""A function of sublet: one process for each customer, which stays for its next calls."""

import json

import sublet_function

calls = 0  # this customer's: no other ever meets this process


def handler(payload, deadline):
    """Bytes in, bytes out, until `deadline` (of time.monotonic()). What it raises is told to the caller."""
    global calls
    calls += 1
    print(f"call {calls} with {len(payload)} bytes", flush=True)  # its log
    event = json.loads(payload) if payload else None
    return json.dumps({"sub_tenant": sublet_function.SUB_TENANT, "calls": calls, "event": event}).encode()


sublet_function.serve(handler)
