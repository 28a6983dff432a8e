"""A Lambda handler as anybody writes one: it imports nothing of sublet's."""

import logging
import os
import time

CALLS = 0


def handler(event, context):
    global CALLS
    CALLS += 1
    do = event.get("do", "who")
    if do == "who":
        return {
            "client": "python",
            "tenant": context.tenant_id,
            "request": context.aws_request_id,
            "left_ms": context.get_remaining_time_in_millis(),
            "function": context.function_name,
            "memory_mib": int(context.memory_limit_in_mb),
            "arn": context.invoked_function_arn,
            "calls": CALLS,
            "value": event.get("value"),
        }
    if do == "fail":
        raise ValueError("as asked")
    if do == "exit":
        os._exit(event.get("status", 3))
    if do == "not json":
        return {"it": object()}
    if do == "big":
        return "x" * event["bytes"]
    if do == "sleep":
        time.sleep(event["ms"] / 1000)
        return CALLS
    if do == "keep":
        with open("/tmp/kept", "a", encoding="utf-8") as kept:
            kept.write(event["value"])
        with open("/tmp/kept", encoding="utf-8") as kept:
            return kept.read()
    if do == "log":
        logging.getLogger().error(event["value"])
        print(event["value"].replace("\n", " "))
        return None
    if do == "print":
        print(event["value"])
        return None
    if do == "env":
        return {name: value for name, value in os.environ.items() if name.startswith(("AWS", "LAMBDA", "_", "TZ"))}
    raise KeyError(do)
