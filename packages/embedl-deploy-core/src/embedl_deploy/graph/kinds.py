"""Classes of ``torch.nn`` by what they do to shapes and memory."""

from torch import nn

from embedl_deploy.graph.forms.activations import ACTIVATIONS

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
    *(activation.module_class for activation in ACTIVATIONS),
)
