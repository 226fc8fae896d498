"""What is said of batch norm, weighed: a ledger of claims, each with an experiment and a verdict."""

__all__: tuple[str, ...] = ()
