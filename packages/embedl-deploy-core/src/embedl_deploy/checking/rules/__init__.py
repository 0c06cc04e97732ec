"""The check rules of every backend: each file in this folder defines some."""
