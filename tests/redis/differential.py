#!/usr/bin/env python3
"""Sends random sequences of commands to redis-server 7 and to Antecede and compares the replies.

    differential.py --antecede PATH            starts `PATH dev --port P` and redis-server
    differential.py --port P                   compares with a server that runs already
    differential.py --self-test                shows that the comparison itself works

Each sequence comes from one seed, which is printed; `--seed N --sequences 1` repeats it. Replies
are compared byte by byte in RESP2 and RESP3, values, errors and types alike. A sequence that
fails is made shorter until nothing can be left out, and printed.

Differences that are allowed, and nothing else:

1. Times: what TTL, PTTL, EXPIRETIME and PEXPIRETIME answer may differ by TIME_SLACK_MILLIS, since
   the two servers are asked one after the other. TIME is compared by its kind only.
2. Order: the keys of KEYS and of a whole SCAN are compared as sets. A SCAN from a cursor that the
   server has not given is compared by its kind. RANDOMKEY is compared by whether there is a key.
3. How a value is kept: MEMORY USAGE is compared by whether it is an error; Redis also measures a
   key whose time is over until something else meets it. OBJECT ENCODING of a value that
   APPEND or SETRANGE has made is not compared: Redis remembers that it was grown (`raw`),
   Antecede tells from the value alone. OBJECT REFCOUNT is compared by its kind: Redis shares
   small numbers and says how many there might be.
4. What a server says of itself: INFO, HELLO, CLIENT LIST, CLIENT INFO, CLIENT ID, COMMAND COUNT,
   and texts of HELP are compared by their kind (HELLO 2 and 3 also by their effect).
5. Cluster words: READONLY, READWRITE and ASKING answer OK, CLUSTER INFO, MYID and KEYSLOT answer,
   where Redis says that cluster support is disabled: they are not sent.
6. Newer words: CLIENT SETINFO and CLIENT NO-TOUCH are known, which Redis 7.0 does not know: they
   are not sent. CLIENT TRACKING and CLIENT PAUSE are refused: they are not sent.
7. What a transaction may hold: KEYS, SCAN, DBSIZE, RANDOMKEY, WAIT and commands that change the
   connection are refused inside MULTI, and a transaction's keys lie in one shard: the first are
   not sent there, and the keys of a sequence with MULTI share a hash tag.
8. OBJECT IDLETIME and OBJECT FREQ are refused: they are not sent. COMMAND INFO has no tips and no
   notes: it is compared without the first, and not sent for SET, which has a note.
"""

import argparse
import random
import sys

import resp

TIME_SLACK_MILLIS = 5000
KEYS_COUNT = 6
# The connection beside those of the sequence, which is never in a transaction.
SWEEPER = 2

# Far enough that no key ends while a sequence runs, or already over.
SECONDS = ["0", "-1", "1000", "2000", "300000", "-100000"]
MILLIS = ["0", "-1", "1000000", "2000000", "300000000", "-100000000"]
AT_SECONDS = ["0", "1", "-5", "4102444800", "4202444800"]
AT_MILLIS = ["0", "1", "-5", "4102444800000", "4202444800000"]
OFFSETS = ["0", "1", "2", "5", "40", "100", "-1", "536870912", "4611686018427387904"]
ENDS = ["0", "1", "-1", "2", "-2", "5", "100", "-100", "9223372036854775807",
        "-9223372036854775808"]
VALUES = ["", "a", "b", "value", "0", "12", "-7", "007", "9223372036854775807",
          "9223372036854775808", "x" * 44, "x" * 45, "y" * 300, "two words", "nul\0byte",
          "line\r\nend", "\xff\xfe", "$5", "*1"]
ODD_WORDS = ["", "abc", "-1", "0", "1.5", "+1", "01", " 1", "9223372036854775807",
             "9223372036854775808", "-9223372036854775808", "NX", "XX", "GT", "LT", "GET", "EX",
             "PX", "EXAT", "PXAT", "KEEPTTL", "PERSIST", "MATCH", "COUNT", "\0", "a\r\nb"]
PATTERNS = ["*", "k*", "*0", "k?", "k[0-2]", "k[^0]", "nosuch", "\\k*", "*{t}*", "k[2-0]", "", "[",
            "**", "k[", "*\\"]


def pick(chance, words):
    return chance.choice(words)


def set_options(chance):
    options = []
    if chance.random() < 0.3:
        options.append(pick(chance, ["NX", "XX", "nx", "xX"]))
    if chance.random() < 0.25:
        options.append(pick(chance, ["GET", "get"]))
    kind = chance.random()
    if kind < 0.12:
        options.append("KEEPTTL")
    elif kind < 0.5:
        options += expiry(chance)
    chance_of_order = chance.random()
    if chance_of_order < 0.2 and 1 < len(options) and options[-2] not in ("EX", "PX"):
        options.insert(0, options.pop())
    return options


def expiry(chance):
    name, words = pick(chance, [("EX", SECONDS), ("PX", MILLIS), ("EXAT", AT_SECONDS),
                                ("PXAT", AT_MILLIS), ("ex", SECONDS), ("pxat", AT_MILLIS)])
    return [name, pick(chance, words)]


def with_time_of_its_own(chance, words):
    """With GT or LT a relative time that no key has already, or a millisecond would decide."""
    drawn = {"EXPIRE": SECONDS, "PEXPIRE": MILLIS}.get(words[0].upper(), [])
    compares = {"GT", "LT"} & {word.upper() for word in words[3:]}
    if not compares or words[2] not in drawn or int(words[2]) <= 0:
        return words
    longest = max(map(int, drawn))
    return [*words[:2], str(chance.randrange(longest // 100, longest)), *words[3:]]


def conditions(chance):
    if chance.random() < 0.5:
        return []
    return [pick(chance, ["NX", "XX", "GT", "LT", "gt"])
            for _ in range(pick(chance, [1, 1, 1, 2]))]


class Sequence:
    """Draws the commands of one sequence from one seed."""

    def __init__(self, seed, length):
        self.chance = random.Random(seed)
        self.has_transactions = self.chance.random() < 0.4
        tag = "{t}" if self.has_transactions or self.chance.random() < 0.3 else ""
        self.keys = [f"k{tag}{number}" for number in range(KEYS_COUNT)]
        # A value must not move to the place of a key, for the same reason.
        self.first_to_leave_out = 2 if self.has_transactions else 1
        self.steps = []
        for connection in (0, 1):
            if self.chance.random() < 0.5:
                self.steps.append((connection, ["HELLO", "3"]))
        while len(self.steps) < length:
            if self.has_transactions and self.chance.random() < 0.12:
                self.add_transaction()
            else:
                connection = self.chance.randrange(2)
                self.steps.append((connection, self.command(inside=False)))

    def key(self):
        return self.chance.choice(self.keys)

    def some_keys(self):
        return [self.key() for _ in range(pick(self.chance, [1, 1, 2, 3, 5]))]

    def add_transaction(self):
        chance = self.chance
        connection = chance.randrange(2)
        if chance.random() < 0.5:
            self.steps.append((connection, ["WATCH", *self.some_keys()]))
            if chance.random() < 0.5:
                self.steps.append((1 - connection, self.command(inside=False)))
            if chance.random() < 0.1:
                self.steps.append((connection, ["UNWATCH"]))
        self.steps.append((connection, ["MULTI"]))
        for _ in range(chance.randrange(6)):
            kind = chance.random()
            if kind < 0.05:
                words = pick(chance, [["MULTI"], ["WATCH", self.key()], ["nosuch", "a"], ["GET"],
                                      ["EXEC", "x"]])
            else:
                words = self.command(inside=True)
            self.steps.append((connection, words))
            if chance.random() < 0.15:
                self.steps.append((1 - connection, self.command(inside=False)))
        end = pick(chance, ["EXEC", "EXEC", "EXEC", "exec", "DISCARD"])
        self.steps.append((connection, [end]))

    def command(self, inside):
        if not inside and self.chance.random() < 0.08:
            return self.other_command()
        words = self.data_command(inside)
        kind = self.chance.random()
        if words[0] == "WAIT":
            pass  # An odd number of replicas would be waited for without end.
        elif kind < 0.04 and 1 < len(words):
            words[self.chance.randrange(1, len(words))] = self.odd_word()
        elif kind < 0.06:
            words.insert(self.chance.randrange(1, len(words) + 1), self.odd_word())
        elif kind < 0.08 and self.first_to_leave_out < len(words):
            words.pop(self.chance.randrange(self.first_to_leave_out, len(words)))
        if self.chance.random() < 0.1:
            words[0] = words[0].lower()
        return with_time_of_its_own(self.chance, words)

    def odd_word(self):
        # Where it stands for a key, a transaction's keys must still lie in one shard.
        return pick(self.chance, ODD_WORDS) + ("{t}" if self.has_transactions else "")

    def data_command(self, inside):
        if self.chance.random() < 0.75:
            return self.string_command()
        return self.key_command(inside)

    def string_command(self):
        chance, key = self.chance, self.key()
        value = pick(chance, VALUES)
        number = pick(chance, ENDS)
        draws = [
            lambda: ["GET", key],
            lambda: ["GET", key],
            lambda: ["SET", key, value, *set_options(chance)],
            lambda: ["SET", key, value, *set_options(chance)],
            lambda: ["SET", key, value],
            lambda: ["MGET", *self.some_keys()],
            lambda: ["MSET", *sum(([one, pick(chance, VALUES)] for one in self.some_keys()), [])],
            lambda: ["GETSET", key, value],
            lambda: ["SETNX", key, value],
            lambda: ["SETEX", key, pick(chance, SECONDS), value],
            lambda: ["PSETEX", key, pick(chance, MILLIS), value],
            lambda: ["GETEX", key],
            lambda: ["GETEX", key, *expiry(chance)],
            lambda: ["GETEX", key, "PERSIST"],
            lambda: ["GETDEL", key],
            lambda: ["APPEND", key, value],
            lambda: ["STRLEN", key],
            lambda: ["GETRANGE", key, number, pick(chance, ENDS)],
            lambda: ["SUBSTR", key, number, pick(chance, ENDS)],
            lambda: ["SETRANGE", key, pick(chance, OFFSETS), pick(chance, VALUES[:7])],
        ]
        return pick(chance, draws)()

    def key_command(self, inside):
        chance, key = self.chance, self.key()
        draws = [
            lambda: ["DEL", *self.some_keys()],
            lambda: ["UNLINK", *self.some_keys()],
            lambda: ["EXISTS", *self.some_keys()],
            lambda: ["TOUCH", *self.some_keys()],
            lambda: ["TYPE", key],
            lambda: ["EXPIRE", key, pick(chance, SECONDS), *conditions(chance)],
            lambda: ["PEXPIRE", key, pick(chance, MILLIS), *conditions(chance)],
            lambda: ["EXPIREAT", key, pick(chance, AT_SECONDS), *conditions(chance)],
            lambda: ["PEXPIREAT", key, pick(chance, AT_MILLIS), *conditions(chance)],
            lambda: [pick(chance, ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), key],
            lambda: ["PERSIST", key],
            lambda: ["OBJECT", "ENCODING", key],
            lambda: ["OBJECT", "REFCOUNT", key],
            lambda: ["MEMORY", "USAGE", key],
        ]
        if not inside:
            draws += [
                lambda: ["KEYS", pick(chance, PATTERNS)],
                lambda: ["SCAN", "0", "MATCH", pick(chance, PATTERNS)],
                lambda: ["SCAN", "0", "COUNT", pick(chance, ["1", "100", "0", "-1"])],
                lambda: ["SCAN", "0", "TYPE", pick(chance, ["string", "STRING", "hash", "list"])],
                lambda: ["SCAN", pick(chance, ["x", "0", "18446744073709551616", ""])],
                lambda: ["DBSIZE"],
                lambda: ["RANDOMKEY"],
                lambda: ["WAIT", pick(chance, ["0", "-1", "x"]), pick(chance, ["0", "-1", "x"])],
            ]
        return pick(chance, draws)()

    def other_command(self):
        chance = self.chance
        return pick(chance, [
            ["PING"], ["PING", "hello"], ["ECHO", pick(chance, VALUES)], ["SELECT", "0"],
            ["SELECT", pick(chance, ["1", "-1", "x", "99999999999"])], ["TIME"],
            ["CLIENT", "GETNAME"], ["CLIENT", "SETNAME", pick(chance, ["me", "", "a b", "\n"])],
            ["CLIENT", "ID"], ["CLIENT", "INFO"], ["CLIENT", "LIST"], ["CLIENT", "nosuch"],
            ["CLIENT"], ["CLIENT", "KILL", "ID", pick(chance, ["0", "x", "987654321"])],
            ["CLIENT", "KILL", "1.2.3.4:5"], ["CLIENT", "LIST", "TYPE", "nosuch"],
            ["CLIENT", "NO-EVICT", pick(chance, ["on", "OFF", "x"])], ["CLIENT", "GETREDIR"],
            ["CLIENT", "MAINT_NOTIFICATIONS", "ON"], ["CLIENT", "UNPAUSE"],
            ["CLIENT", "TRACKINGINFO"], ["CLIENT", "CACHING", pick(chance, ["YES", "NO", "x"])],
            ["AUTH", "x"], ["AUTH", "default", "x"], ["AUTH", "nobody", "x"],
            ["HELLO", pick(chance, ["2", "3", "4", "x", "1"])], ["HELLO"],
            ["HELLO", "3", pick(chance, ["AUTH", "SETNAME", "nosuch"])],
            ["COMMAND", "COUNT"], ["COMMAND", "INFO", pick(chance, ["get", "append", "nosuch",
                                                                    "mset", "object|encoding"])],
            ["COMMAND", "GETKEYS", "SET", "a", "b"], ["COMMAND", "GETKEYS", "PING", "a"],
            ["COMMAND", "GETKEYSANDFLAGS", "MSET", "a", "b", "c", "d"],
            ["COMMAND", "GETKEYS", "GET", "a", "b"], ["COMMAND", "GETKEYS", "nosuch", "a"],
            ["COMMAND", "DOCS", "nosuch"], ["COMMAND", "LIST", "FILTERBY", "MODULE", "nosuch"],
            ["COMMAND", "LIST", "nosuch"], ["COMMAND", "nosuch"],
            ["CONFIG", "GET", "nosuch"], ["CONFIG", "SET", "nosuch", "1"], ["CONFIG", "SET", "x"],
            ["ACL", "WHOAMI"], ["ACL", "CAT"], ["ACL", "CAT", "nosuch"], ["ACL", "LIST"],
            ["ACL", "USERS"], ["ACL", "nosuch"], ["MODULE", "LIST"], ["SLOWLOG", "LEN"],
            ["SLOWLOG", "GET", pick(chance, ["x", "-2"])], ["LATENCY", "LATEST"],
            ["LATENCY", "HISTORY", "command"], ["LATENCY", "RESET"], ["MEMORY", "nosuch"],
            ["OBJECT", "nosuch", "k"], ["OBJECT"], ["CLUSTER", "NODES"], ["CLUSTER", "nosuch"],
            ["INFO"], ["INFO", "nosuch"], ["RESET"], ["nosuch", "a", "b"], ["nosuch"],
            ["x" * 200, "y" * 200], ["MULTI", "x"], ["EXEC"], ["DISCARD"], ["UNWATCH"],
        ])


class Pair:
    """Both servers, with two connections each, on which a sequence is played, and a third."""

    def __init__(self, ports, spoil):
        self.sides = [[resp.Client(port) for _ in range(SWEEPER + 1)] for port in ports]
        self.spoil = spoil
        self.grown = set()
        self.is_in_transaction = [False, False]
        self.queued = [[], []]
        self.end_what_is_over()
        for side in self.sides:
            left = [key.value for key in side[0].call("KEYS", "*").value]
            if left:
                side[0].call("UNLINK", *left)

    def close(self):
        for side in self.sides:
            for client in side:
                client.close()

    def play(self, connection, words):
        """Sends one command to both; what differs, or `None`."""
        name = words[0].upper()
        encoded = [word.encode("latin-1") for word in words]
        if name in ("DBSIZE", "RANDOMKEY") and not self.is_in_transaction[connection]:
            self.end_what_is_over()
        wanted, found = (side[connection].call(*encoded) for side in self.sides)
        if self.spoil:
            found = self.spoil(words, found)
        commands = [words]
        if self.is_in_transaction[connection]:
            if wanted.raw == b"+QUEUED\r\n":
                self.queued[connection].append(words)
            if name == "EXEC":
                commands = self.queued[connection]
        self.follow(connection, name, wanted)
        for command in commands:
            if command[0].upper() in ("APPEND", "SETRANGE"):
                self.grown.update(command[1:2])
        if name == "EXEC" and wanted.kind == "*" and wanted.value:
            same = found.kind == "*" and len(found.value or []) == len(wanted.value)
            same = same and all(map(self.is_same, commands, wanted.value, found.value))
        elif is_scan_from_start(words) and wanted.kind == "*" and found.kind == "*":
            same = self.whole_scan(0, connection, encoded, wanted) == self.whole_scan(
                1, connection, encoded, found)
        else:
            same = self.is_same(words, wanted, found)
        return None if same else (wanted, found)

    def follow(self, connection, name, reply):
        if name == "MULTI" and reply.raw == b"+OK\r\n":
            self.is_in_transaction[connection] = True
            self.queued[connection] = []
        elif name in ("EXEC", "DISCARD", "RESET") and reply.raw != b"+QUEUED\r\n":
            self.is_in_transaction[connection] = False

    def end_what_is_over(self):
        """Redis counts keys whose time is over until something meets them: a scan does."""
        words = [b"SCAN", b"0", b"COUNT", b"1000"]
        for place, side in enumerate(self.sides):
            self.whole_scan(place, SWEEPER, words, side[SWEEPER].call(*words))

    def whole_scan(self, side, connection, words, reply):
        keys = set()
        while True:
            keys.update(item.value for item in reply.value[1].value)
            cursor = reply.value[0].value
            if cursor == b"0":
                return keys
            reply = self.sides[side][connection].call(words[0], cursor, *words[2:])

    def is_same(self, words, wanted, found):
        name = words[0].upper()
        whole = " ".join(words[:2]).upper()
        if wanted.raw == found.raw:
            return True
        if wanted.is_error or found.is_error:
            return False
        if whole == "MEMORY USAGE":
            return True
        if wanted.kind != found.kind:
            return False
        if name in ("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"):
            unit = 1 if name.startswith("P") else 1000
            apart = abs(int(wanted.value) - int(found.value)) * unit
            return min(int(wanted.value), int(found.value)) >= 0 and apart <= TIME_SLACK_MILLIS
        if name == "SCAN":
            return not is_scan_from_start(words)
        if name == "KEYS":
            return key_set(wanted) == key_set(found)
        if name == "RANDOMKEY":
            return wanted.value is not None and found.value is not None
        if whole == "OBJECT ENCODING":
            return words[2:3] and words[2] in self.grown
        if whole == "COMMAND INFO":
            return without_tips(wanted) == without_tips(found)
        return whole in KIND_ONLY or name in KIND_ONLY


KIND_ONLY = {"TIME", "OBJECT REFCOUNT", "INFO", "HELLO", "CLIENT LIST", "CLIENT INFO", "CLIENT ID",
             "COMMAND COUNT"}


def is_scan_from_start(words):
    return words[0].upper() == "SCAN" and words[1:2] in (["0"], [""])


def key_set(reply):
    return {item.value for item in reply.value}


def without_tips(reply):
    def about(row):
        if row.kind != "*" or not row.value:
            return row.raw
        parts = row.value[:7] + row.value[8:]
        return b"".join(sorted_if_set(part) for part in parts)

    return [about(row) for row in reply.value]


def sorted_if_set(reply):
    if reply.kind == "~" or (reply.kind == "*" and all(i.kind == "+" for i in reply.value or [])):
        return b"".join(sorted(item.raw for item in reply.value or []))
    return reply.raw


def run(ports, steps, keys, make_spoil):
    """Plays steps from a clean state; the place and the difference of the first that differs."""
    pair = Pair(ports, make_spoil())
    try:
        for place, (connection, words) in enumerate(steps):
            difference = pair.play(connection, words)
            if difference:
                return place, difference
        for place, words in enumerate(last_look(keys), len(steps)):
            for connection in (0, 1):
                if pair.is_in_transaction[connection]:
                    pair.play(connection, ["DISCARD"])
            difference = pair.play(0, words)
            if difference:
                return place, difference
    finally:
        pair.close()
    return None


def last_look(keys):
    """What is asked after each sequence: the state in which it has left the keys."""
    for key in keys:
        yield ["GET", key]
        yield ["PTTL", key]
    yield ["KEYS", "*"]
    yield ["DBSIZE"]


def shrink(ports, steps, keys, make_spoil, result):
    """The steps without those that the difference does not need, and what differs then."""
    length = max(1, len(steps) // 2)
    while True:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + length:]
            found = run(ports, fewer, keys, make_spoil)
            if found and not is_refused_inside(found):
                steps, result = fewer, found
            else:
                at += length
        if length == 1:
            return steps, result
        length = max(1, length // 2)


def is_refused_inside(result):
    """Whether steps that were left out have moved a command into a transaction (see 7)."""
    _, (_, found) = result
    return b" is not available inside MULTI" in found.raw


def show(words):
    return " ".join(repr(word) if not word.isalnum() else word for word in words)


def compare(ports, seed, count, length, make_spoil=lambda: None):
    """Plays so many sequences; the shortened steps of the first that differs, or `None`."""
    for number in range(count):
        sequence = Sequence(seed + number, length)
        keys = sequence.keys
        result = run(ports, sequence.steps, keys, make_spoil)
        if result is None:
            continue
        steps, result = shrink(ports, sequence.steps, keys, make_spoil, result)
        place, (wanted, found) = result
        print(f"seed {seed + number} (--seed {seed + number} --sequences 1 --length {length}):")
        shown = steps + [(0, words) for words in last_look(keys)]
        for connection, words in shown[:place + 1]:
            print(f"  {connection}> {show(words)}")
        print(f"  wanted {wanted}\n  found  {found}")
        return steps
    return None


def spoil_every_third_append():
    """A server with a bug: the third APPEND of a sequence answers one more than it should."""
    state = {"appends": 0}

    def spoil(words, reply):
        if words[0].upper() == "APPEND" and reply.kind == ":":
            state["appends"] += 1
            if state["appends"] == 3:
                value = int(reply.value) + 1
                return resp.Reply(b":%d\r\n" % value, ":", b"%d" % value)
        return reply

    return spoil


def spoil_null_kind():
    """A server with a bug: a missing value is an empty array."""
    def spoil(_, reply):
        if reply.raw in (b"$-1\r\n", b"_\r\n"):
            return resp.Reply(b"*-1\r\n", "*", None)
        return reply

    return spoil


def self_test(seed):
    """Redis does not differ from itself, and bugs that are put in are found and made short."""
    with resp.start_redis() as one, resp.start_redis() as other:
        ports = (one.port, other.port)
        passed = [("redis-server does not differ from itself", compare(ports, seed, 60, 60) is None)]
        print("two bugs are put in; both must be found:")
        for name, bug, steps_max in [("a wrong number is found and shortened",
                                      spoil_every_third_append, 3),
                                     ("a null of the wrong kind is found and shortened",
                                      spoil_null_kind, 1)]:
            found = compare(ports, seed, 60, 60, bug)
            passed.append((name, found is not None and len(found) <= steps_max))
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--antecede", metavar="PATH", help="the binary to start")
    parser.add_argument("--port", type=int, help="of a server that runs already")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    if options.self_test:
        results = self_test(options.seed)
    else:
        if bool(options.antecede) == bool(options.port):
            parser.error("give either --antecede or --port")
        with resp.start_redis() as redis:
            name = f"{options.sequences} sequences do not differ"
            if options.port:
                ports = (redis.port, options.port)
                found = compare(ports, options.seed, options.sequences, options.length)
            else:
                with resp.start_antecede(options.antecede) as antecede:
                    ports = (redis.port, antecede.port)
                    found = compare(ports, options.seed, options.sequences, options.length)
        results = [(name, found is None)]
    for name, is_passed in results:
        print(f"{'ok  ' if is_passed else 'FAIL'} {name}")
    return 0 if all(is_passed for _, is_passed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
