"""A small network with what rewrites must keep: a block that is called twice, a residual, a tied weight."""

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class ResidualNet(nn.Module):
    """Two calls of one block, a residual, a shared weight, an output in the middle."""

    def __init__(self):
        super().__init__()
        self.block, self.head, self.tail = Block(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.tail.weight = self.head.weight

    def forward(self, x):
        middle = self.block(self.block(x))
        return self.tail(F.relu(self.head(middle)) + middle), middle
