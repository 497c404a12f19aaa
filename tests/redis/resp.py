"""Speaks the Redis protocol in raw bytes, starts servers, and ends them by their process."""

import os
import shutil
import socket
import subprocess
import tempfile
import time

REPLY_TIMEOUT_SECONDS = 20.0
START_TIMEOUT_SECONDS = 20.0


class Reply:
    """One reply: its bytes as they came, and what they mean."""

    def __init__(self, raw, kind, value):
        self.raw = raw
        self.kind = kind
        self.value = value

    def __repr__(self):
        text = self.raw.decode("latin-1").encode("unicode_escape").decode()
        return text if len(text) < 400 else text[:400] + "..."

    @property
    def is_error(self):
        return self.kind == "-"


class Client:
    """One connection, on which each request waits for its reply."""

    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=REPLY_TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""

    def close(self):
        self.socket.close()

    def call(self, *words):
        self.send(*words)
        return self.read()

    def send(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))

    def send_raw(self, data):
        self.socket.sendall(data)

    def read_to_end(self):
        """All bytes until the server closes the connection."""
        data = self.held
        self.held = b""
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more

    def read(self):
        line = self._line()
        kind, rest = chr(line[0]), line[1:-2]
        if kind in "+-:,#(_":
            return Reply(line, kind, rest)
        if kind in "$=!":
            if int(rest) < 0:
                return Reply(line, kind, None)
            body = self._exactly(int(rest) + 2)
            return Reply(line + body, kind, body[:-2])
        if kind in "*~>%":
            if int(rest) < 0:
                return Reply(line, kind, None)
            count = int(rest) * (2 if kind == "%" else 1)
            items = [self.read() for _ in range(count)]
            return Reply(line + b"".join(item.raw for item in items), kind, items)
        raise ValueError(f"no reply begins like this: {line!r}")

    def _line(self):
        while b"\r\n" not in self.held:
            self._more()
        line, _, self.held = self.held.partition(b"\r\n")
        return line + b"\r\n"

    def _exactly(self, length):
        while len(self.held) < length:
            self._more()
        data, self.held = self.held[:length], self.held[length:]
        return data

    def _more(self):
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError(f"the server closed the connection after {self.held!r}")
        self.held += more


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process of our own; `stop` ends it and nothing else."""

    def __init__(self, name, command, port):
        self.name = name
        self.port = port
        self.folder = tempfile.mkdtemp(prefix="antecede-redis-")
        self.log_path = os.path.join(self.folder, "log")
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at its start:\n{self.log_text()}")
            try:
                client = Client(self.port)
                try:
                    if client.call("PING").raw == b"+PONG\r\n":
                        return
                finally:
                    client.close()
            except OSError:
                pass
            if deadline < time.monotonic():
                raise RuntimeError(f"{self.name} is not ready in time:\n{self.log_text()}")
            time.sleep(0.02)

    def log_text(self):
        self.log.flush()
        with open(self.log_path, "rb") as log:
            return log.read()[-4000:].decode("utf-8", "replace")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()


def start_redis():
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "no", "--databases", "1"]
    return Server("redis-server", command, port)


def start_antecede(path):
    port = free_port()
    return Server("antecede", [os.path.abspath(path), "dev", "--port", str(port)], port)
