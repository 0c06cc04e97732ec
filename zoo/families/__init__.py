"""Lists of models: each family is a file, and a model a line of it."""

import importlib

from zoo.member import Member

#: Family → the file that lists it. A file is imported where its family is asked for: each needs a package of its own.
FAMILIES = {
    "hf": "zoo.families.hf",
    "timm": "zoo.families.timm_models",
    "torchvision": "zoo.families.torchvision_classifiers",
    "detection": "zoo.families.detection",
    "speech": "zoo.families.speech",
    "llm": "zoo.families.llm",
}


def members_of(family: str) -> dict[str, Member]:
    """The models of a family, by name; of a module's ``MEMBERS`` where no family has that name."""
    members: list[Member] = importlib.import_module(FAMILIES.get(family, family)).MEMBERS
    return {member.name: member for member in members}
