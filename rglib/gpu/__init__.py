"""A GPU by the quarter hour: the experiment cut into visits to one that is far away."""
