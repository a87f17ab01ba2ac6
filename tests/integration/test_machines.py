"""The channel between two machines: two network namespaces with a cable between them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = """
import asyncio, sys
from infaas_ray.serving.listener import Server
async def main():
    server = Server(lambda call: call.reply(call.fields, {"y": call.arrays["x"] * 2}), b"s" * 32)
    print(await server.listen("10.77.0.1:0"), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.close()
asyncio.run(main())
"""
CLIENT = """
import asyncio, sys
import numpy as np
from infaas_ray.errors import ReplicaLost
from infaas_ray.serving.channel import connect
async def main():
    # The replica's socket file is on its own machine: the address behind it must be found and used.
    connection = await connect(f"{sys.argv[1]},unix:/nowhere/replica.sock", b"s" * 32)
    x = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
    replies = await asyncio.gather(*(connection.call("double", {"n": n}, {"x": x}) for n in range(5)))
    assert [reply.fields["n"] for reply in replies] == list(range(5))
    assert all(np.array_equal(reply.arrays["y"], x * 2) for reply in replies)
    await connection.close()
    try:
        await connect(sys.argv[1], b"w" * 32)
    except ReplicaLost:
        print("passed")
asyncio.run(main())
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    names = ("infaas-a", "infaas-b")
    for name in names:
        ip("netns", "add", name)
    try:
        ip("link", "add", "infaas-v0", "netns", names[0], "type", "veth", "peer", "infaas-v1", "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"infaas-v{number}")
            ip("-n", name, "link", "set", f"infaas-v{number}", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def test_tensors_pass_between_machines(namespaces: tuple[str, str]) -> None:
    root = Path(__file__).parents[2]
    python = [sys.executable, "-c"]
    enter = ["ip", "netns", "exec"]
    server = subprocess.Popen(
        [*enter, namespaces[0], *python, SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        found = subprocess.run(
            [*enter, namespaces[1], *python, CLIENT, address],
            capture_output=True,
            text=True,
            cwd=root,
            timeout=60,
            check=False,
        )
    finally:
        server.communicate(timeout=10)
    assert found.stdout == "passed\n", found.stderr
