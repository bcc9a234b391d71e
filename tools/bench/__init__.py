"""How systems are measured side by side: each in a process of its own, interleaved."""
