"""Nodes of a graph in an order in which each follows what it uses."""

from collections.abc import Iterator

import onnx

from muquant.base.errors import InputError


def put_in_order(graph: onnx.GraphProto) -> None:
    """Put the nodes of a graph in order, in place, where they are not: onnxruntime runs them in any.

    Raises:
        InputError: a value is computed from itself.
    """
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    needs = [[makers[name] for name in used_by(node) if name in makers] for node in graph.node]
    if all(each < place for place, each_of in enumerate(needs) for each in each_of):
        return
    order, done = list[int](), set[int]()
    for first in range(len(needs)):
        waiting, begun = [first], set[int]()
        while waiting:
            place = waiting[-1]
            missing = [each for each in needs[place] if each not in done]
            if missing and place in begun:
                raise InputError(f"{graph.node[place].output[0]} is computed from itself; export it again")
            if not missing:
                if place not in done:
                    done.add(place)
                    order.append(place)
                waiting.pop()
            else:
                begun.add(place)
                waiting += missing
    nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def used_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node uses, also those that its branches and loops take from outside."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own.update(name for inner in graph.node for name in inner.output)
            used = [name for inner in graph.node for name in used_by(inner)]
            used += [output.name for output in graph.output]
            yield from (name for name in used if name not in own)
