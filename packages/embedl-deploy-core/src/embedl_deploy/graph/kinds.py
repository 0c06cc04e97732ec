"""Classes of ``torch.nn`` by what they do to shapes and memory."""

from torch import nn

#: Computed element by element, by a formula without parameters; the result has the shape of the input.
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.Hardtanh,  # ReLU6 is one
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
)
#: Pooling over two dimensions.
POOLS: tuple[type[nn.Module], ...] = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
#: They give one new tensor, whatever they are given; pools do unless they return indices as well.
ONE_TENSOR: tuple[type[nn.Module], ...] = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.Embedding,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    *POOLS,
    *ACTIVATIONS,
)
