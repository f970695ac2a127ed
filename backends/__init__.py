"""One adapter per framework; each loads its own framework only."""

if __name__ != "arrayopt.backends":
    raise ImportError("import arrayopt.backends, not backends")
