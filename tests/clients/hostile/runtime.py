"""A Lambda runtime that does what no client should, as the event says; then it answers as if nothing had been.

The event is {"do": NAME, ...}; the answer tells what the API said to what was done. HOSTILE in the environment says what is
done before the first call. Nothing but Python's standard library, so that it runs wherever Python does.
"""

import http.client
import json
import os
import socket
import sys
import time

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
BASE = "/2018-06-01/runtime"
HOST, PORT = API.split(":")


def ask(method, path, body=None, headers=None, connection=None):
    """One request. Returns its status, headers and body."""
    own = connection or http.client.HTTPConnection(HOST, int(PORT))
    own.request(method, BASE + path, body, headers or {})
    answer = own.getresponse()
    return answer.status, answer.headers, answer.read()


def following(connection=None):
    """Asks for the next call. Returns its id and event."""
    status, headers, body = ask("GET", "/invocation/next", connection=connection)
    if status != 200:
        return status, None
    return headers["Lambda-Runtime-Aws-Request-Id"], json.loads(body)


def respond(request, body):
    status, _, _ = ask("POST", f"/invocation/{request}/response", body)
    return status


def raw(data, wait=5.0):
    """Sends bytes as they are. Returns the status the API answers, 0 when it hangs up instead."""
    with socket.create_connection((HOST, int(PORT))) as connection:
        connection.settimeout(wait)
        try:
            connection.sendall(data)
            answer = connection.recv(4096)
        except (ConnectionError, TimeoutError):
            return 0
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def before():
    how = os.environ.get("HOSTILE")
    if how == "die":
        print("dying as asked")
        sys.exit(7)
    if how == "sleep":
        time.sleep(3600)
    if how == "error":
        body = json.dumps({"errorMessage": "no module named app", "errorType": "Runtime.ImportModuleError"})
        ask("POST", "/init/error", body, {"Lambda-Runtime-Function-Error-Type": "Runtime.ImportModuleError"})
        sys.exit(1)


def main():
    before()
    previous = None
    calls = 0
    while True:
        request, event = following()
        calls += 1
        told = {}
        do = event.get("do")
        if do == "previous":
            told["status"] = respond(previous, '"for the previous"')
        elif do == "two polls":
            again, _ = following()
            told["same"] = again == request
        elif do == "connections":
            open_ones = []
            try:
                for _ in range(event["count"]):
                    connection = socket.create_connection((HOST, int(PORT)), timeout=1)
                    open_ones.append(connection)
            except OSError as error:
                told["stopped"] = str(error)
            told["opened"] = len(open_ones)
            for connection in open_ones:
                connection.close()
        elif do == "headers":
            head = f"GET {BASE}/invocation/next HTTP/1.1\r\nHost: x\r\n".encode()
            told["status"] = raw(head + b"X-Long: " + b"x" * (2 << 20) + b"\r\n\r\n")
            told["many"] = raw(head + b"".join(b"X-%d: x\r\n" % at for at in range(1000)) + b"\r\n")
        elif do == "garbage":
            told["status"] = raw(b"\x00\xff" * 500 + b"\r\n\r\n")
            told["path"] = ask("GET", "/../../etc/passwd")[0]
            told["method"] = ask("DELETE", "/invocation/next")[0]
        elif do == "not json":
            respond(request, b"\xff\xfe{")
            previous = request
            continue
        elif do == "big":
            told["status"] = respond(request, b"x" * event["bytes"])
            print("big:", told["status"], flush=True)
            previous = request
            continue
        elif do == "long error":
            # As a client does it that has caught a RecursionError: it ends when this is not taken.
            body = json.dumps({"errorMessage": "the first words " + "x" * event["bytes"], "errorType": "RecursionError"})
            if ask("POST", f"/invocation/{request}/error", body)[0] != 202:
                sys.exit(1)
            previous = request
            continue
        elif do == "announce":
            # Says more than it sends, and hangs up; then it answers after all.
            head = f"POST {BASE}/invocation/{request}/response HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            with socket.create_connection((HOST, int(PORT))) as connection:
                connection.sendall(head.encode() + b"half")
        elif do == "late":
            time.sleep(event["seconds"])
        elif do == "never again":
            respond(request, '"the last"')
            time.sleep(3600)
        elif do == "flood":
            line = b"x" * 65535 + b"\n"
            for _ in range(event["bytes"] // len(line)):
                os.write(1, line)
        told.update(calls=calls, value=event.get("value"))
        first = respond(request, json.dumps(told))
        if do == "twice":
            # The caller has the first one; the second must meet nobody.
            print("twice:", first, respond(request, '"the second"'), flush=True)
        previous = request


main()
