"""What became of each quantization point, operation and correction, and why: codes, words, and the report."""
