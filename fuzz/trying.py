"""Trying laws on a network, in this process."""

import re
import traceback
import warnings
from collections.abc import Collection, Iterable
from random import Random

import torch

from embedl_deploy.errors import EmbedlDeployError
from fuzz.laws import LAWS, Broken, Law, Subject
from fuzz.laws.law import LeftOut
from fuzz.laws.subject import leaves
from fuzz.loading import load, unload
from fuzz.network import Network, write_network
from fuzz.outcome import BROKEN, HELD, LEFT_OUT, REFUSED, Outcome

#: Stands for a law where the network itself does not run.
NETWORK = "(the network itself)"
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|«[^»]*»|\[[^\]]*\]|\([^)]*\d[^)]*\)|[-+]?\d[\w.+-]*|\b[a-z]+_?\d+\b|\s+")


def laws_for(seed: int, only: Collection[str] = ()) -> list[Law]:
    """The laws whose turn it is; all that are named, if some are."""
    if only:
        return [LAWS[name] for name in LAWS if name in only]
    return [law for law in LAWS.values() if Random(f"law {law.name} {seed}").random() < law.share]


def subject_of(network: Network) -> Subject:
    """Load a network for trial."""
    loaded = load(network)
    return Subject(network.seed, loaded.make, loaded.inputs, halves=network.halves, double=network.double)


def try_network(seed: int, only: Collection[str] = (), dropped: Collection[object] = ()) -> list[Outcome]:
    """Write the network of a seed and try laws on it."""
    network = write_network(seed, dropped)
    try:
        subject = subject_of(network)
        problem = _unsound(subject)
        if problem:
            return [Outcome(NETWORK, BROKEN, problem, problem)]
        return [hold(law, subject) for law in laws_for(seed, only)]
    finally:
        unload(network)


def _unsound(subject: Subject) -> str:
    """Why nothing can be asked of a network: it raises, or gives what is not finite or differs from run to run."""
    try:
        runs = [subject.run(subject.make().train(train)) for train in (False, True)]
        again = subject.run(subject.make())
    except Exception as error:  # noqa: BLE001 - a generated network may do anything; the fault is the grammar's
        return f"{type(error).__name__}: {error}"
    if not all(bool(leaf.isfinite().all()) for leaf in leaves(runs)):
        return "outputs are not finite"
    if not all(torch.equal(x, y) for x, y in zip(leaves(again), leaves(runs[0]), strict=True)):
        return "outputs differ from run to run"
    return ""


def hold(law: Law, subject: Subject) -> Outcome:
    """Try one law."""
    try:
        own = subject.own_warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            law.hold(subject)
    except EmbedlDeployError as error:
        return Outcome(law.name, REFUSED, _kind(error), f"{type(error).__name__}: {error}")
    except LeftOut:
        return Outcome(law.name, LEFT_OUT)
    except Broken as error:
        return Outcome(law.name, BROKEN, _kind(error), str(error))
    except Exception as error:  # noqa: BLE001 - whatever the code under test raises is what is looked for
        return Outcome(law.name, BROKEN, _kind(error), "".join(traceback.format_exception(error)[-12:]))
    new = [warning for warning in caught if str(warning.message) not in own]
    if new:
        text = "\n".join(f"{w.category.__name__}: {w.message} ({w.filename}:{w.lineno})" for w in new)
        return Outcome(law.name, BROKEN, f"warning: {_plain(str(new[0].message))}", text)
    return Outcome(law.name, HELD)


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {_plain(str(error))}"


def _plain(message: str) -> str:
    """A message without what differs between networks, and without lists of them."""
    first: Iterable[str] = (line for line in message.splitlines() if line.strip())
    text = _VARIABLE.sub(lambda m: " " if m[0].isspace() else "…", next(iter(first), ""))
    colon = text.find(": ", 25)
    return text[: colon if colon >= 0 else None][:120]
