"""What is asked of a file for every backend: each file of this folder defines rules."""
