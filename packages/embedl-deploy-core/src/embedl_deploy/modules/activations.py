"""The activations that the fused modules know how to end with."""

from torch import nn

#: An element-wise activation that hardware computes in the epilogue of a convolution or matrix product. Usable as a
#: type, in ``isinstance`` and as an element of a pattern's tree.
ActivationLike = nn.ReLU | nn.ReLU6 | nn.LeakyReLU | nn.ELU | nn.GELU | nn.SiLU | nn.Hardswish | nn.Hardsigmoid
