"""The laws that are tried on every network, or on a share of them."""

from fuzz.laws import capturing, files, hash_seeds, plans, quantizing, threads, training, untouched
from fuzz.laws.law import Broken, Law
from fuzz.laws.subject import Subject

#: By name, in the order in which they are tried.
LAWS: dict[str, Law] = {
    value.name: value
    for family in (capturing, training, untouched, plans, quantizing, files, threads, hash_seeds)
    for value in vars(family).values()
    if isinstance(value, Law)
}
#: Where each law is written down.
FAMILIES = {
    name: family
    for family in (capturing, training, untouched, plans, quantizing, files, threads, hash_seeds)
    for name, value in vars(family).items()
    if isinstance(value, Law)
}

__all__ = ["FAMILIES", "LAWS", "Broken", "Law", "Subject"]
