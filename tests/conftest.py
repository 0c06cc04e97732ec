"""What every test can rely on: torchvision is importable, and two threads compute."""

import torch

from support.torchvision_import import import_torchvision

import_torchvision()
torch.set_num_threads(2)
