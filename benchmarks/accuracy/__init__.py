"""The Pareto study: LUVC, its variants and other training-free methods at equal token budgets."""
