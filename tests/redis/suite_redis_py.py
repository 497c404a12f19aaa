"""Uses Antecede as a program with redis-py would: `suite_redis_py.py PORT`."""

import sys

import redis

PORT = int(sys.argv[1])
TESTS = []


def test(body):
    TESTS.append(body)
    return body


def connect(**options):
    return redis.Redis(port=PORT, decode_responses=True, **options)


def refused(text, action):
    try:
        action()
    except redis.RedisError as error:
        assert text in str(error), f"{error!r} has no {text!r}"
        return
    raise AssertionError(f"was not refused with {text!r}")


@test
def connects_in_both_versions_with_a_name():
    for protocol in (2, 3):
        client = connect(protocol=protocol, client_name="worker")
        assert client.ping()
        assert client.client_getname() == "worker"
        assert client.client_info()["resp"] == str(protocol)
        assert client.info("server")["redis_version"]
        client.close()


@test
def strings_come_back():
    client = connect()
    assert client.set("py:a", "1") is True
    assert client.get("py:a") == "1"
    assert client.get("py:none") is None
    assert client.set("py:a", "2", nx=True) is None
    assert client.set("py:a", "3", xx=True, get=True) == "1"
    assert client.mset({"py:b": "x", "py:c": "y"})
    assert client.mget("py:a", "py:none", "py:b") == ["3", None, "x"]
    assert client.append("py:b", "yz") == 3
    assert client.getrange("py:b", 1, -1) == "yz"
    assert client.setrange("py:b", 5, "!") == 6
    assert client.strlen("py:b") == 6
    assert client.getdel("py:b") == "xyz\0\0!"
    assert client.getset("py:c", "z") == "y"
    assert client.setnx("py:c", "n") is False
    assert client.type("py:c") == "string"
    assert client.object("encoding", "py:a") == "int"
    assert client.delete("py:a", "py:c", "py:none") == 2
    assert client.exists("py:a") == 0


@test
def times_to_live_are_kept():
    client = connect()
    client.set("py:t", "v", ex=100)
    assert 90 < client.ttl("py:t") <= 100
    assert client.pexpire("py:t", 500_000) is True
    assert 490_000 < client.pttl("py:t") <= 500_000
    assert client.expire("py:t", 1, nx=True) is False
    assert client.persist("py:t") is True
    assert client.ttl("py:t") == -1
    assert client.getex("py:t", ex=50) == "v"
    assert client.expiretime("py:t") > 1_700_000_000
    client.expireat("py:t", 1)
    assert client.get("py:t") is None
    assert client.ttl("py:t") == -2


@test
def the_default_pipeline_is_a_transaction():
    client = connect()
    with client.pipeline() as pipe:
        pipe.set("{py}:a", "1").append("{py}:a", "2").get("{py}:a").ping()
        assert pipe.execute() == [True, 2, "12", True]
    with client.pipeline(transaction=False) as pipe:
        for number in range(200):
            pipe.set(f"py:n{number}", number)
        for number in range(200):
            pipe.get(f"py:n{number}")
        assert pipe.execute()[200:] == [str(number) for number in range(200)]


@test
def a_watched_key_that_changes_stops_the_transaction():
    client, other = connect(), connect()
    client.set("{py}:w", "1")
    with client.pipeline() as pipe:
        pipe.watch("{py}:w")
        other.set("{py}:w", "2")
        pipe.multi()
        pipe.set("{py}:w", "3")
        try:
            pipe.execute()
        except redis.WatchError:
            pass
        else:
            raise AssertionError("the transaction was executed")
    assert client.get("{py}:w") == "2"


@test
def all_keys_are_found():
    client = connect()
    wanted = {f"py:scan:{number}" for number in range(50)}
    client.mset({key: "v" for key in wanted})
    assert set(client.scan_iter(match="py:scan:*", count=7)) == wanted
    assert set(client.keys("py:scan:*")) == wanted
    assert list(client.scan_iter(match="py:scan:*", _type="hash")) == []
    assert client.dbsize() >= 50
    assert client.randomkey() is not None
    assert client.touch(*wanted) == 50
    assert client.unlink(*wanted) == 50


@test
def bytes_of_every_kind_come_back():
    client = redis.Redis(port=PORT)
    value = bytes(range(256)) * 100
    key = b"py:\r\n\0\xff"
    client.set(key, value)
    assert client.get(key) == value
    client.set("py:large", b"x" * 3_000_000)
    assert client.get("py:large") == b"x" * 3_000_000
    client.delete(key, "py:large")


@test
def errors_are_told_as_redis_tells_them():
    client = connect()
    refused("unknown command", lambda: client.execute_command("NOSUCH"))
    refused("wrong number of arguments for 'get' command", lambda: client.execute_command("GET"))
    refused("value is not an integer", lambda: client.expire("py:a", "x"))
    refused("invalid expire time in 'set' command", lambda: client.set("py:a", "v", ex=0))
    refused("syntax error", lambda: client.execute_command("SET", "py:a", "v", "NX", "XX"))
    assert client.ping()


@test
def the_server_describes_itself():
    client = connect()
    assert client.command_count() > 50
    assert client.execute_command("COMMAND", "INFO", "get") is not None
    assert client.command_getkeys("MSET", "a", "b", "c", "d") == ["a", "c"]
    assert client.config_get("databases") in ({}, {"databases": "1"})
    assert client.acl_whoami() == "default"
    assert client.client_id() > 0
    assert any(entry["name"] == "me" for entry in named_list())
    assert len(client.time()) == 2
    assert client.wait(0, 1) >= 0
    assert client.memory_usage("py:none") is None


def named_list():
    client = connect(client_name="me")
    return client.client_list()


@test
def a_session_is_carried_by_its_token():
    client, other = connect(), connect()
    try:
        token = client.execute_command("CAUSAL.TOKEN")
    except redis.ResponseError as error:
        assert "unknown command" in str(error)
        print("note: the server is no Antecede, CAUSAL.* is left out")
        return
    client.set("py:token", "v")
    token = client.execute_command("CAUSAL.TOKEN")
    assert other.execute_command("CAUSAL.AFTER", token, "TIMEOUT", "1000") in ("OK", True)
    assert other.get("py:token") == "v"
    refused("", lambda: other.execute_command("CAUSAL.AFTER", "nonsense"))
    assert client.execute_command("CAUSAL.LEVEL") == "linearizable"
    client.execute_command("CAUSAL.LEVEL", "eventual")
    assert client.execute_command("CAUSAL.LEVEL") == "eventual"
    client.execute_command("CAUSAL.RESET")
    refused("not available", lambda: client.execute_command("INCR", "py:counter"))
    client.close()


for body in TESTS:
    try:
        body()
    except Exception as error:  # Each test is told of, whatever it meets.
        print(f"FAIL redis-py: {body.__name__.replace('_', ' ')}: {error!r}")
    else:
        print(f"ok   redis-py: {body.__name__.replace('_', ' ')}")
