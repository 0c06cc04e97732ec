"""Where quantizers go, and which rule decided it."""
