"""Many models, each of them through every stage: what works, and the reason where something does not."""
