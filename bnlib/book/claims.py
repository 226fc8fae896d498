"""What is said of batch norm, weighed: each claim with an experiment and a verdict."""

__all__: tuple[str, ...] = ()
