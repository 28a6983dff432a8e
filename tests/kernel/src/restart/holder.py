"""Holds the sockets of a daemon, as systemd does, and starts the daemon again and again: sd_listen_fds(3).

Arguments: the program, its configuration, the sockets' paths or ports. Commands on stdin, one answer each on stdout:
  start, stop            the daemon; stop says whether every socket's path is still there
  restart                both, with the milliseconds for which nobody accepted, as seen from here
"""
import fcntl
import os
import signal
import socket
import sys
import time

PROGRAM, CONFIG, *ADDRESSES = sys.argv[1:]
FIRST = 3


def bound(address):
    if address.isdigit():
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(address)))
    else:
        listener = socket.socket(socket.AF_UNIX)
        old = os.umask(0o177)
        listener.bind(address)
        os.umask(old)
    listener.listen(1024)
    # Out of the way of the numbers that the daemon is given.
    return fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, 100), listener


LISTENERS = [bound(address) for address in ADDRESSES]


def start():
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        # Without our terminal, if we have one.
        os.setsid()
        for number, (descriptor, _) in enumerate(LISTENERS, FIRST):
            os.dup2(descriptor, number)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(theirs, 1)
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(LISTENERS))
        os.environ["LISTEN_FDNAMES"] = ":".join(f"socket-{number}" for number in range(len(LISTENERS)))
        os.execv(PROGRAM, [PROGRAM, "serve", "--config", CONFIG])
    os.close(theirs)
    with os.fdopen(ours) as out:
        line = out.readline()
    return child, line.startswith("serving")


def stop(child):
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return status


def paths():
    return all(address.isdigit() or os.path.exists(address) for address in ADDRESSES)


daemon = None
for command in sys.stdin:
    if command == "start\n":
        daemon, serves = start()
        answer = "serving" if serves else "failed"
    elif command == "restart\n":
        status = stop(daemon)
        gone = time.monotonic()
        is_there = paths()
        daemon, serves = start()
        gap = (time.monotonic() - gone) * 1000
        answer = f"{gap:.1f}" if status == 0 and serves and is_there else f"failed: {status} {serves} {is_there}"
    else:
        answer = f"{stop(daemon)} {paths()}"
    print(answer, flush=True)
for address in ADDRESSES:
    if not address.isdigit():
        os.unlink(address)
