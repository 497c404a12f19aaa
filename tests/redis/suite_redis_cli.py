"""Uses Antecede with redis-cli and redis-benchmark, and with bytes that no client sends:
`suite_redis_cli.py PORT`.
"""

import subprocess
import sys

import resp

PORT = int(sys.argv[1])
TIMEOUT_SECONDS = 120
TESTS = []


def test(body):
    TESTS.append(body)
    return body


def cli(*words, text=None):
    command = ["redis-cli", "-p", str(PORT), *words]
    done = subprocess.run(command, input=text, capture_output=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "replace")


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


@test
def redis_cli_speaks_both_versions():
    same(cli("SET", "cli:a", "1"), "OK\n")
    same(cli("GET", "cli:a"), "1\n")
    same(cli("-3", "GET", "cli:a"), "1\n")
    same(cli("-3", "GET", "cli:none"), "\n")
    same(cli("DEL", "cli:a"), "1\n")


@test
def redis_cli_scans_and_pipes():
    lines = "".join(f"SET cli:scan:{number} v\r\n" for number in range(300))
    assert "errors: 0, replies: 300" in cli("--pipe", text=lines.encode())
    assert len(cli("--scan", "--pattern", "cli:scan:*").split()) == 300


@test
def redis_cli_reads_commands_from_its_input():
    same(cli(text=b"SET cli:b x\nAPPEND cli:b y\nGET cli:b\nnosuch\n").splitlines()[:3],
         ["OK", "2", "xy"])


@test
def redis_benchmark_completes():
    for options in (["-P", "16"], []):
        command = ["redis-benchmark", "-p", str(PORT), "-t", "ping,set,get", "-q", "-n", "20000"]
        command += ["-c", "50", "-r", "1000", *options]
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS)
        assert done.returncode == 0, done.stderr
        assert b"GET" in done.stdout, done.stdout
        assert b"rror" not in done.stdout + done.stderr, done.stdout + done.stderr


def closed_with(data):
    client = resp.Client(PORT)
    client.send_raw(data)
    client.socket.settimeout(5)
    try:
        return client.read_to_end()
    finally:
        client.close()


@test
def bytes_that_are_no_request_are_refused_in_the_words_of_redis():
    for data, wanted in [
        (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*9223372036854775807\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$9223372036854775807\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\nGET\r\n", b"-ERR Protocol error: expected '$', got 'G'\r\n"),
        (b"GET \"a\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"x" * 70000, b"-ERR Protocol error: too big inline request\r\n"),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    ]:
        same(closed_with(data), wanted)


@test
def a_request_is_understood_in_any_pieces():
    client = resp.Client(PORT)
    data = b"*3\r\n$3\r\nSET\r\n$5\r\ncli:p\r\n$4\r\n\r\n*1\r\nPING \r\n\r\n*0\r\nGET 'cli:p'\r\n"
    for at in range(len(data)):
        client.send_raw(data[at:at + 1])
    same([client.read().raw for _ in range(3)], [b"+OK\r\n", b"+PONG\r\n", b"$4\r\n\r\n*1\r\n"])
    client.close()


@test
def many_requests_at_once_are_answered_in_order():
    client = resp.Client(PORT)
    count = 5000
    client.send_raw(b"".join(b"ECHO %d\r\n" % number for number in range(count)))
    for number in range(count):
        same(client.read().value, b"%d" % number)
    client.close()


@test
def replies_are_switched_off_and_on():
    client = resp.Client(PORT)
    client.send_raw(b"CLIENT REPLY OFF\r\nSET cli:r 1\r\nGET\r\nCLIENT REPLY ON\r\n"
                    b"CLIENT REPLY SKIP\r\nPING\r\nGET cli:r\r\n")
    same([client.read().raw for _ in range(2)], [b"+OK\r\n", b"$1\r\n1\r\n"])
    client.close()


@test
def quit_closes_the_connection():
    same(closed_with(b"PING\r\nQUIT\r\nPING\r\n"), b"+PONG\r\n+OK\r\n")


for body in TESTS:
    try:
        body()
    except Exception as error:  # Each test is told of, whatever it meets.
        print(f"FAIL redis-cli: {body.__name__.replace('_', ' ')}: {error!r}")
    else:
        print(f"ok   redis-cli: {body.__name__.replace('_', ' ')}")
