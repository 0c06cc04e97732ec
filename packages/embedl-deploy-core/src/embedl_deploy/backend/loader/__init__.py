"""Finding plugins, loading them, joining a backend and its extensions, and choosing a backend."""
