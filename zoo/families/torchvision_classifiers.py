"""All classifiers of torchvision."""

from functools import partial

from torchvision_import import import_torchvision
from zoo.classifiers import make_model
from zoo.member import Made, Member


def _made(name: str) -> Made:
    model, image = make_model(name)
    return Made(model, (image,))


_MODELS = import_torchvision().models

MEMBERS = [Member(name, partial(_made, name)) for name in _MODELS.list_models(module=_MODELS)]
