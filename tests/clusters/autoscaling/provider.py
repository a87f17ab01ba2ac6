"""Machines for the real autoscaler that are Ray nodes on this one: they boot slowly, and can be told not to come.

Ray's `FakeMultiNodeProvider` starts the nodes. What a launch of a type does is read each time from the JSON file that
`launches` in the provider's settings names: `{"cpu": "fails"}` raises, `{"cpu": "hangs"}` gives a machine on which Ray
never starts; otherwise it comes after `boot_s`.
"""

import copy
import json
import time
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)


class TrialProvider(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: Any, labels: Any
    ) -> None:
        name = tags[TAG_RAY_USER_NODE_TYPE]
        time.sleep(self.provider_config["boot_s"])
        match json.loads(Path(self.provider_config["launches"]).read_text()).get(name):
            case "fails":
                raise RuntimeError(f"InsufficientInstanceCapacity: there are no machines of type {name}")
            case "hangs":
                for _ in range(count):
                    self._add_machine_without_ray(name, tags)
            case _:
                super().create_node_with_resources_and_labels(
                    node_config, tags, count, copy.deepcopy(resources), labels
                )

    def _add_machine_without_ray(self, name: str, tags: Any) -> None:
        with self.lock:
            node = self._next_hex_node_id()
            self._nodes[node] = {
                "tags": {
                    TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                    TAG_RAY_USER_NODE_TYPE: name,
                    TAG_RAY_NODE_NAME: node,
                    TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
                    **tags,
                }
            }

    def _terminate_node(self, node: Any) -> None:
        if "node" in node:
            super()._terminate_node(node)
