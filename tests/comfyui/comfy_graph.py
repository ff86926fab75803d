"""API prompts in few lines: ``g = Graph(); m = g.add("CoMoVi_LoadModel", ...); g.add("KSampler", model=m, ...)``."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

_tags = count(1)


@dataclass(frozen=True)
class Link:
    """One output of a node."""

    id: str
    index: int


@dataclass
class Node:
    """A node of a graph; given as an input it means its first output, ``node[1]`` its second."""

    id: str
    inputs: dict[str, Any]

    def __getitem__(self, index: int) -> Link:
        return Link(self.id, index)


@dataclass
class Graph:
    """Nodes in the order in which they were added."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, class_type: str, /, **inputs: Any) -> Node:
        """Add a node. Inputs are values, nodes or ``node[i]``; a key with a dot may come from ``**{"a.b": 1}``."""
        node = Node(str(len(self.nodes) + 1), {name: _value(value) for name, value in inputs.items()})
        self.nodes[node.id] = {"class_type": class_type, "inputs": node.inputs}
        return node

    def prompt(self) -> dict[str, Any]:
        return {key: {**node, "inputs": dict(node["inputs"])} for key, node in self.nodes.items()}

    def save_latent(self, samples: Any) -> Node:
        """Write a LATENT to a file, so that Result.latent reads its numbers."""
        return self.add("SaveLatent", samples=samples, filename_prefix="latents/test")

    def save_images(self, images: Any) -> Node:
        return self.add("SaveImage", images=images, filename_prefix="test")

    def count_calls(self, model: Any) -> Node:
        """A MODEL that counts its network calls; give ``[1]`` to show_calls. Each use runs anew."""
        return self.add("Probe_CountCalls", model=model, tag=next(_tags))

    def show_calls(self, counter: Node, after: Any) -> Node:
        return self.add("Probe_ShowCalls", calls=counter[1], after=after)


def _value(value: Any) -> Any:
    if isinstance(value, Node):
        return [value.id, 0]
    if isinstance(value, Link):
        return [value.id, value.index]
    return value
