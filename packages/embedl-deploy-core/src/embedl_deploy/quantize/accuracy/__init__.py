"""What keeps accuracy: equalization, SmoothQuant, bias correction and learned rounding."""
