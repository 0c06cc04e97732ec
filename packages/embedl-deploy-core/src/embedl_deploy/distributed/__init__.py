"""What several processes that do one thing together tell each other, over torch.distributed."""
