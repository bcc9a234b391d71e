"""What `make demo` asks, random checkpoints to try things on, and the pictures of the documentation."""
