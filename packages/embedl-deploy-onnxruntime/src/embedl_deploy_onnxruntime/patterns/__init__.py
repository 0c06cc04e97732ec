"""Every pattern of this backend."""
