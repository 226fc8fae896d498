"""Other norms: the same two functions over other axes, and norms of the weights."""

__all__: tuple[str, ...] = ()
