"""Runs a program beside a Redis or PostgreSQL server of its own, on a free loopback port.

    bench_servers.py redis|postgres [--disk-gib N] [--memory-gib N] -- PROGRAM ARGUMENT ...

The program gets `--url` and `--data` (the server's folder) after its arguments. The folder is in target/, on the disk
of this repository, and is removed after. The server is durable as a real one: Redis appends to a file and syncs it each
second, PostgreSQL syncs each commit. Redis does not rewrite its file by itself, so that this does not begin in the
middle of a measurement. PostgreSQL refuses root, so root runs it as the user postgres or nobody. The programs are those
that scripts/fetch-servers finds or installs.
"""

import argparse
import contextlib
import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A server that was just killed must have ended by then, and a new one must answer.
PATIENCE = 60
PR_SET_PDEATHSIG = 1


def programs():
    """Returns the path of redis-server, and the folder of PostgreSQL's programs."""
    # Not the running servers that tests may use.
    env = {name: value for name, value in os.environ.items() if not name.startswith("DOCVECTOR_EMBED_TEST_")}
    found = subprocess.run([ROOT / "scripts/fetch-servers"], env=env, stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        sys.exit(found.returncode)
    redis, postgres = found.stdout.splitlines()
    return pathlib.Path(redis), pathlib.Path(postgres)


def redis(folder):
    """Returns a server's command, its URL, the signal that ends it, its user, and what tells whether it answers."""
    port = free_port()
    command = [programs()[0], "--bind", "127.0.0.1", "--port", port, "--dir", folder, "--daemonize", "no"]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", 0]

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    return command, f"redis://127.0.0.1:{port}", signal.SIGTERM, {}, answers


def postgres(folder):
    port, bin_ = free_port(), programs()[1]
    user = {}
    if os.geteuid() == 0:
        owner = of_servers()
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    data = folder / "data"
    make = [bin_ / "initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "-D", data]
    done = subprocess.run(make, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **user)
    if done.returncode != 0:
        sys.exit(f"initdb failed: {done.stdout}")
    command = [bin_ / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", ""]
    for setting in ("fsync=on", "synchronous_commit=on", "shared_buffers=1GB", "max_wal_size=4GB"):
        command += ["-c", setting]

    def answers():
        ready = [bin_ / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres"]
        return subprocess.run(ready).returncode == 0

    # SIGINT: clients are sent away, and the server ends in good order.
    return command, f"postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable", signal.SIGINT, user, answers


def of_servers():
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    sys.exit("bench_servers: PostgreSQL refuses root, and neither postgres nor nobody is a user here")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


SERVERS = {"redis": redis, "postgres": postgres}


@contextlib.contextmanager
def server(kind):
    """Starts a server in a folder of its own; gives its URL and the folder; ends it and removes the folder."""
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"bench-{kind}-", dir=target))
    try:
        command, url, end, user, answers = SERVERS[kind](folder)
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C is for us, who end the server then.
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, end),
                **user,
            )
        try:
            wait(process, answers, folder / "log")
            yield url, folder
        finally:
            process.send_signal(end)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait(process, answers, log):
    give_up = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < give_up:
        if answers():
            return
        time.sleep(0.05)
    sys.exit(f"bench_servers: the server does not answer: {log.read_text(errors='replace')[-2000:]}")


def check_room(disk_gib, memory_gib):
    """Stops before a disk or the memory is full, which other programs of the machine would feel."""
    (ROOT / "target").mkdir(exist_ok=True)
    free = shutil.disk_usage(ROOT / "target").free / 2**30
    if free < disk_gib:
        sys.exit(f"bench_servers: {disk_gib:.0f} GiB are needed in target/, {free:.0f} GiB are free")
    memory = pathlib.Path("/proc/meminfo").read_text()
    available = int(memory.split("MemAvailable:")[1].split()[0]) / 2**20
    if available < memory_gib:
        sys.exit(f"bench_servers: {memory_gib:.0f} GiB of memory are needed, {available:.0f} GiB are free")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SERVERS)
    parser.add_argument("--disk-gib", type=float, default=1, help="ends at once if less of the disk is free")
    parser.add_argument("--memory-gib", type=float, default=1, help="ends at once if less memory is free")
    parser.add_argument("program", nargs="+", help="after --")
    options = parser.parse_args()
    check_room(options.disk_gib, options.memory_gib)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # The server ends, and its folder goes.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with server(options.kind) as (url, folder):
        with subprocess.Popen([*options.program, "--url", url, "--data", folder]) as program:
            try:
                code = program.wait()
            finally:
                program.kill()
    sys.exit(code)


if __name__ == "__main__":
    main()
