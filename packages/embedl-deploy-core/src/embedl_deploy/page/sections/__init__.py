"""The sections of a page, each of which is there if its data is."""
