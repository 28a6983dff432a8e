"""Example of a `stream` function in Python: CSV in, a report on its columns out, as JSON.

A worker lives from call to call, and all its calls are of one sub-tenant. So this one may keep a database of the
reports it has made, in /tmp, its only writable place, and nobody else's figures can get into it. It needs nothing but
the standard library:

    [tenant.acme.function.report]
    runtime = "stream"
    layout = "host"
    dir = "/srv/functions/report"
    command = ["/usr/bin/python3", "-I", "/function/sqlite_report.py"]

For a function of your own, copy the part between the two long lines with its imports and write a handler: it gets the
payload (bytes) and the deadline, and returns the answer (bytes). What it raises is told to the caller, and the worker
serves on. What it prints goes to the worker's log.
"""

import csv
import io
import json
import math
import os
import re
import socket
import sqlite3
import struct
import sys
import time
import traceback

# ---- the protocol of sublet ------------------------------------------------------------------------------------------
# magic, version, kind, flags, payload length, aux, lease, label: 48 bytes, little-endian.
HEADER = struct.Struct("<4sBBHII16s16s")
MAGIC, VERSION = b"SBLT", 1
READY, REQUEST, RESPONSE, ERROR = 3, 4, 5, 6  # kinds
IN_PIECES = 2  # flag: the caller would take the answer in pieces; one is enough
PAYLOAD_MAX = 64 * 1024 * 1024  # no frame is ever larger
ERROR_TEXT_MAX = 4 * 1024  # it reaches the caller in a header, and those are small


def serve(handler):
    """Gives each call to `handler(payload, deadline)`, a time of time.monotonic(), until sublet closes the channel."""
    channel = socket.socket(fileno=3)
    channel.set_inheritable(False)  # programs that the handler starts must not speak for it
    try:
        channel.sendall(HEADER.pack(MAGIC, VERSION, READY, 0, 0, 0, bytes(16), bytes(16)))
        while (request := _receive(channel)) is not None:
            payload, milliseconds, lease, label = request
            kind, answer = _answer(handler, payload, time.monotonic() + milliseconds / 1000)
            # Lease and label go back as they came: they prove that this answer belongs to that request.
            channel.sendall(HEADER.pack(MAGIC, VERSION, kind, 0, len(answer), 0, lease, label) + answer)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the other side is gone, which is how a worker is told to end


def _answer(handler, payload, deadline):
    try:
        answer = handler(payload, deadline)
        if not isinstance(answer, bytes):
            raise TypeError(f"the handler returned {type(answer).__name__}, not bytes")
        if len(answer) > PAYLOAD_MAX:
            raise ValueError(f"the answer has {len(answer)} bytes, and no answer may have more than {PAYLOAD_MAX}")
        return RESPONSE, answer
    except Exception as error:  # SystemExit and its like are not among them, and end the worker
        traceback.print_exc()  # for the log; the caller gets the text alone
        text = str(error) or type(error).__name__
        cut = text.encode(errors="replace")[:ERROR_TEXT_MAX].decode(errors="ignore")  # not in the middle of a character
        return ERROR, cut.encode()


def _receive(channel):
    """The next request, or None when the channel is closed."""
    head = channel.recv(HEADER.size)
    if not head:
        return None
    head += _read(channel, HEADER.size - len(head))
    magic, version, kind, flags, length, milliseconds, lease, label = HEADER.unpack(head)
    if (magic, version, kind) != (MAGIC, VERSION, REQUEST) or flags & ~IN_PIECES or length > PAYLOAD_MAX:
        sys.exit(f"not a request: {head.hex()}")
    return _read(channel, length), milliseconds, lease, label


def _read(channel, length):
    content = bytearray(length)
    filled = 0
    while filled < length:
        count = channel.recv_into(memoryview(content)[filled:])
        if count == 0:
            sys.exit("the channel was closed in the middle of a frame")
        filled += count
    return bytes(content)


# ---- the function ----------------------------------------------------------------------------------------------------
REPORTS = "/tmp/reports.db"
REPORTS_KEPT = 100  # /tmp is small, and it is memory
REPORTS_SHOWN = 5
COLUMNS_MAX = 500
TOP_VALUES = 5
# Time kept back to send what there is to say before the worker is ended.
SPARE_SECONDS = 0.05
KINDS = ("empty", "integer", "real", "text")
# Up to 18 digits fit SQLite's integers. "007" is a name, not a number.
INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})", re.ASCII)
REAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


class BadCsv(ValueError):
    """The caller's fault, in words for the caller."""


def kind_of(value):
    """Index into KINDS; a column is of the highest kind of its values."""
    if value == "":
        return 0
    if INTEGER.fullmatch(value):
        return 1
    # "1e999" looks like a number and is none that JSON could tell.
    if REAL.fullmatch(value) and math.isfinite(float(value)):
        return 2
    return 3


def rows_of(payload):
    """The header, and an iterator over the rows, every one as wide as the header."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadCsv(f"the payload is not UTF-8 text: byte {error.start} is {payload[error.start]:#04x}") from None
    if "\0" in text:
        raise BadCsv(f"the payload holds a NUL byte, after {text.index(chr(0))} characters")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)

    def lines():
        try:
            yield from (line for line in reader if line)
        except csv.Error as error:
            raise BadCsv(f"line {reader.line_num}: {error}") from None

    def rows():
        for row in body:
            if len(row) != len(header):
                raise BadCsv(f"line {reader.line_num} has {len(row)} fields, the header has {len(header)}")
            yield row

    body = lines()
    header = [name.strip() for name in next(body, [])]
    if not header:
        raise BadCsv("the payload is empty: expected a header row and rows of the same width")
    if len(header) > COLUMNS_MAX:
        raise BadCsv(f"the header has {len(header)} columns, the most is {COLUMNS_MAX}")
    for index, name in enumerate(header):
        if not name:
            raise BadCsv(f"column {index + 1} has no name in the header")
        if name in header[:index]:
            raise BadCsv(f"two columns are named {name!r}")
    return header, rows()


def report_on(payload, deadline):
    """Loads the CSV into a database in memory and asks it."""
    header, rows = rows_of(payload)
    kinds = [0] * len(header)

    def is_late():
        return time.monotonic() > deadline - SPARE_SECONDS

    def too_late():
        return TimeoutError(f"no time left for {len(payload)} bytes: send less, or give the call more time")

    def values():
        for row in rows:
            if is_late():
                raise too_late()
            for index, value in enumerate(row):
                kinds[index] = max(kinds[index], kind_of(value))
            yield [value or None for value in row]

    database = sqlite3.connect(":memory:")
    database.set_progress_handler(is_late, 10_000)
    try:
        # Columns are called c0, c1, …: nothing the caller wrote becomes part of a statement.
        database.execute("CREATE TABLE data ({})".format(", ".join(f"c{i} TEXT" for i in range(len(header)))))
        database.executemany("INSERT INTO data VALUES ({})".format(", ".join("?" * len(header))), values())
        (count,) = database.execute("SELECT count(*) FROM data").fetchone()
        columns = [column_report(database, f"c{i}", header[i], KINDS[kinds[i]]) for i in range(len(header))]
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            raise too_late() from None
        raise
    finally:
        database.close()
    return {"rows": count, "columns": columns}


def column_report(database, column, name, kind):
    values, distinct = database.execute(f"SELECT count({column}), count(DISTINCT {column}) FROM data").fetchone()
    top = database.execute(
        f"SELECT {column}, count(*) FROM data WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?",
        (TOP_VALUES,),
    )
    report = {"name": name, "type": kind, "values": values, "distinct": distinct}
    if kind in ("integer", "real"):
        number = f"CAST({column} AS {kind})"
        row = database.execute(f"SELECT min({number}), max({number}), avg({number}) FROM data").fetchone()
        report.update(zip(("min", "max", "avg"), row))
    report["top"] = [{"value": value, "count": count} for value, count in top]
    return report


class History:
    """The reports this worker has made."""

    def __init__(self, path):
        self.database = sqlite3.connect(path, isolation_level=None)
        # The file is in memory anyway and does not outlive the worker.
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute("CREATE TABLE IF NOT EXISTS reports (id INTEGER PRIMARY KEY, rows INTEGER, columns TEXT)")

    def add(self, report):
        names = json.dumps([column["name"] for column in report["columns"]])
        self.database.execute("INSERT INTO reports (rows, columns) VALUES (?, ?)", (report["rows"], names))
        self.database.execute("DELETE FROM reports WHERE id <= (SELECT max(id) FROM reports) - ?", (REPORTS_KEPT,))

    def tell(self):
        (count,) = self.database.execute("SELECT coalesce(max(id), 0) FROM reports").fetchone()
        last = self.database.execute("SELECT id, rows, columns FROM reports ORDER BY id DESC LIMIT ?", (REPORTS_SHOWN,))
        return {
            "reports": count,
            "sub_tenant": os.environ.get("SUBLET_SUB_TENANT") or None,
            "last": [{"report": id, "rows": rows, "columns": json.loads(columns)} for id, rows, columns in last],
        }


def main():
    history = History(REPORTS)

    def handler(payload, deadline):
        report = report_on(payload, deadline)
        history.add(report)
        return json.dumps(report | {"worker": history.tell()}, ensure_ascii=False, allow_nan=False).encode()

    serve(handler)


if __name__ == "__main__":
    main()
