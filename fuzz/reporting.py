"""Counts: how many networks, and for each law how many were tried, held, were refused and are broken."""

import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fuzz.laws import LAWS
from fuzz.outcome import BROKEN, HELD, REFUSED, Outcome


@dataclass
class Tally:
    """What was found so far.

    Attributes:
        networks: How many were tried.
        counts: (law, status) → how many.
        kinds: (status, law, kind of message) → seeds.
        texts: The first message of each kind.
    """

    networks: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def add(self, seed: int, outcomes: list[Outcome]) -> None:
        """Count the outcomes of a network."""
        self.networks += 1
        for outcome in outcomes:
            self.counts[outcome.law, outcome.status] += 1
            if outcome.status in (REFUSED, BROKEN):
                key = outcome.status, outcome.law, outcome.kind
                self.kinds[key].append(seed)
                self.texts.setdefault(key, outcome.text)

    @property
    def broken(self) -> int:
        """How often a law was broken."""
        return sum(count for (_, status), count in self.counts.items() if status == BROKEN)

    def progress(self, total: int) -> None:
        """One line for a terminal, or a line now and then for a log."""
        terminal = sys.stderr.isatty()
        if terminal or self.networks % 100 == 0 or self.networks == total:
            seconds = time.monotonic() - self.started
            line = f"{self.networks}/{total} networks, {self.broken} broken, {seconds:.0f} s"
            print(f"\r{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def print(self) -> None:
        """The table of laws, then refusals and breakages by their kind."""
        print(f"\n{self.networks} networks in {time.monotonic() - self.started:.0f} s")
        print(f"{'law':20}{'tried':>9}{'held':>9}{'refused':>9}{'broken':>9}")
        others = sorted({law for law, _ in self.counts} - set(LAWS))
        for law in (*LAWS, *others):
            row = [self.counts[law, status] for status in (HELD, REFUSED, BROKEN)]
            if sum(row):
                print(f"{law:20}{sum(row):9}" + "".join(f"{count:9}" for count in row))
        for status in (REFUSED, BROKEN):
            chosen = [(key, seeds) for key, seeds in self.kinds.items() if key[0] == status]
            if chosen:
                print(f"\n{status}:")
            for (_, law, kind), seeds in sorted(chosen, key=lambda item: (-len(item[1]), item[0])):
                print(f"{len(seeds):6}  {law}: {kind}  (seed {', '.join(map(str, sorted(seeds)[:5]))})")
