"""Methods that keep accuracy: equalization, SmoothQuant, bias correction and learned rounding."""
