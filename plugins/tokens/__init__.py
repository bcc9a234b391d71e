"""Which visual tokens stay, and their rows: the operators that every score shares."""
