"""The experiment cut into quarters of an hour of a GPU that is far away."""
