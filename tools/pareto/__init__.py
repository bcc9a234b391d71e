"""luvc-pareto: what each method keeps of a model's answers, over what it costs."""
