"""Other norms against loops and peers."""
