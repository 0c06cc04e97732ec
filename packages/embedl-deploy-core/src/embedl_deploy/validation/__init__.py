"""The public door: arguments are held against the annotations of what is called, before anything is done with them."""
