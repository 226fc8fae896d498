"""Each verdict is borne out by its numbers."""
