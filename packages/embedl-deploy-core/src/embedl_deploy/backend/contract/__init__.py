"""What the author of a plugin implements: hooks, rules, compilers."""
