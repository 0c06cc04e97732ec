"""Where quantizers go, which rule decided it, and the report."""
