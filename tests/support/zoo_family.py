"""Small models, as a family of the zoo."""

import torch
from torch import nn

from zoo.member import Made, Member


def _made(*layers):
    return Made(nn.Sequential(*layers).eval(), (torch.randn(2, 4, 8, 8),))


def _large():
    torch.empty(10**12)
    return _made()


class Doubtful(nn.Module):
    def forward(self, x):
        raise ValueError("no input will do\nin any case")


MEMBERS = [
    Member("good", lambda: _made(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))),
    Member("large", _large),
    Member("zero", lambda: _made(nn.Hardtanh(0.0, 1e-30), nn.Threshold(1.0, 0.0))),
    Member("doubtful", lambda: _made(Doubtful())),
]
