"""Methods that keep accuracy: centering, equalization, SmoothQuant, bias correction and learned rounding."""
