import pytest

from infaas_ray.errors import ReplicaLost
from infaas_ray.serving.addresses import actor_in
from infaas_ray.serving.channel import connect


def test_the_actor_is_named_among_the_addresses() -> None:
    assert actor_in("10.0.0.1:5000,unix:/run/1.sock,actor:shell:abc:1") == "shell:abc:1"
    assert actor_in("10.0.0.1:5000,unix:/run/1.sock") == ""


async def test_an_actor_is_no_place_to_connect_to() -> None:
    with pytest.raises(ReplicaLost, match="nowhere"):
        await connect("unix:/nowhere/1.sock,actor:replica:a#1", b"secret")
