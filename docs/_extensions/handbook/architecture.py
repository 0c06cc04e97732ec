"""The picture of the architecture: which room imports which, read from the source."""

from functools import cache
from pathlib import Path

import embedl_deploy.tensorrt
import embedl_deploy_onnxruntime
import embedl_deploy_sensai_stub
from handbook.graphs import Box, draw
from handbook.rooms import CORE, documented_rooms, files_of, imported_modules, imported_room, room_of

#: The distributions that stand outside, by their import names.
BACKENDS = {
    "embedl_deploy.tensorrt": Path(embedl_deploy.tensorrt.__file__).parent,
    "embedl_deploy_onnxruntime": Path(embedl_deploy_onnxruntime.__file__).parent,
    "embedl_deploy_sensai_stub": Path(embedl_deploy_sensai_stub.__file__).parent,
}


def imports_between_rooms() -> set[tuple[str, str]]:
    """Pairs of a room, or a backend, and a room that it imports from."""
    rooms = documented_rooms()
    found = {
        (room_of(file, CORE), imported_room(module)) for file in files_of(CORE) for module in imported_modules(file)
    }
    for backend, package in BACKENDS.items():
        for file in package.rglob("*.py"):
            found |= {(backend, imported_room(module)) for module in imported_modules(file)}
    return {(room, other) for room, other in found if room != other and other in rooms and room in {*rooms, *BACKENDS}}


def architecture_picture() -> str:
    """The rooms and the backends, highest floor first, each with lines to what it needs.

    A line is left out where others say the same: what a room imports, and that imports, it may import as well.
    """
    rooms = documented_rooms()
    boxes = {name: Box(name, "outside") for name in BACKENDS}
    boxes |= {name: Box(name, note=rooms[name].replace("`", "")) for name in reversed(rooms)}
    lines = sorted(_without_shortcuts(imports_between_rooms()))
    picture = draw(boxes, lines, "Rooms of embedl_deploy, each above those that it imports from")
    return f'<div class="graphs">\n{picture}\n</div>'


def _without_shortcuts(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The transitive reduction: the fewest lines from which all others follow."""
    needs: dict[str, set[str]] = {}
    for room, other in pairs:
        needs.setdefault(room, set()).add(other)

    @cache
    def reached(room: str) -> set[str]:
        return set().union(*({other} | reached(other) for other in needs.get(room, ())))

    return {
        (room, other)
        for room, other in pairs
        if not any(other in reached(between) for between in needs[room] - {other})
    }
