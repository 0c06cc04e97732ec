"""A fuzzer: networks are written as source code from a seed, and laws that hold for every network are tried on them."""
