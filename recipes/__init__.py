"""The recipes that ship with mmedge; each ``.toml`` is the whole description of one bundle."""
