#!/usr/bin/env python3
"""Runs real Redis clients and the differential test against Antecede.

    python3 -m pip install -r requirements.txt
    npm ci
    run.py --antecede PATH        starts `PATH dev --port P` on a free port for each suite
    run.py --redis                runs the suites against redis-server, which tests the suites

Needs redis-server, redis-cli and redis-benchmark 7 (Debian: redis-server, redis-tools) and Node.
What is missing fails with the line that installs it. The last line counts what passed and failed.
"""

import argparse
import importlib.util
import os
import random
import shutil
import subprocess
import sys

import resp

HERE = os.path.dirname(os.path.abspath(__file__))
SUITE_TIMEOUT_SECONDS = 600

SUITES = {
    "redis-py": [sys.executable, "suite_redis_py.py"],
    "ioredis": ["node", "suite_ioredis.js"],
    "node-redis": ["node", "suite_node_redis.js"],
    "redis-cli": [sys.executable, "suite_redis_cli.py"],
}


def what_is_missing():
    for name in ("redis-server", "redis-cli", "redis-benchmark"):
        if shutil.which(name) is None:
            yield f"{name} is missing: apt-get install redis-server redis-tools"
    if shutil.which("node") is None:
        yield "node is missing: install Node 20 or newer"
    for name in ("ioredis", "redis"):
        if not os.path.isdir(os.path.join(HERE, "node_modules", name)):
            yield f"{name} is missing: cd {HERE} && npm ci"
    if importlib.util.find_spec("redis") is None:
        yield f"redis-py is missing: python3 -m pip install -r {HERE}/requirements.txt"


def run_suite(name, command, server):
    """The lines `ok ...` and `FAIL ...` of a suite; one FAIL more if it does not end well."""
    try:
        done = subprocess.run(
            [*command, str(server.port)],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SUITE_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode("utf-8", "replace").splitlines()
        return [*output, f"FAIL {name}: did not end within {SUITE_TIMEOUT_SECONDS} s"]
    output = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0:
        output.append(f"FAIL {name}: ended with {done.returncode}")
    if not any(line.startswith(("ok ", "FAIL ")) for line in output):
        output.append(f"FAIL {name}: told of no test")
    if server.process.poll() is not None:
        output.append(f"FAIL {name}: the server ended: {server.log_text()}")
    return output


def run_differential(arguments):
    command = [sys.executable, "differential.py", *arguments]
    done = subprocess.run(
        command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=SUITE_TIMEOUT_SECONDS,
    )
    output = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0 and not any(line.startswith("FAIL ") for line in output):
        output.append(f"FAIL differential: ended with {done.returncode}")
    return output


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--antecede", metavar="PATH", help="the binary to test")
    target.add_argument("--redis", action="store_true", help="test the suites with redis-server")
    parser.add_argument("--only", choices=[*SUITES, "differential"], action="append")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--sequences", type=int, default=300)
    options = parser.parse_args()
    missing = list(what_is_missing())
    if missing:
        print("\n".join(missing))
        return 1
    lines = []

    def tell(output):
        lines.extend(output)
        for line in output:
            print(line, flush=True)

    for name, command in SUITES.items():
        if options.only and name not in options.only:
            continue
        try:
            with resp.start_redis() if options.redis else resp.start_antecede(
                options.antecede) as server:
                tell(run_suite(name, command, server))
        except (OSError, RuntimeError) as error:
            tell([f"FAIL {name}: {error}"])
    if not options.only or "differential" in options.only:
        tell(run_differential(["--self-test", "--seed", str(options.seed)]))
        if options.antecede:
            tell(run_differential(["--antecede", os.path.abspath(options.antecede), "--seed",
                                   str(options.seed), "--sequences", str(options.sequences)]))
    passed = sum(line.startswith("ok ") for line in lines)
    failed = sum(line.startswith("FAIL ") for line in lines)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
