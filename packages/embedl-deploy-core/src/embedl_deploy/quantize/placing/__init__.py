"""Where quantizers go, by whose rule, and what the report says of it."""
