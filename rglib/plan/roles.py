"""The two networks, P and G, and who learns, reads and uses which of them."""

ROLES = ("P", "G")
ROLE = {"gradient_descent": "G", "pnp_admm": "P"}  # the network that each algorithm uses

INITIALISATIONS = ("default", "orthogonal")  # where a network starts that starts from no stage

# By objective, in `rglib.training.objectives`; what `equilibrium` learns depends on its options.
LEARNS = {"denoising": "P", "residual_start": "G", "score_start": "G", "pnpreg": "PG"}
USES = {"residual_start": "P"}  # networks that a stage needs and leaves as they are
TERMS = {"P": ("link", "forward_backward"), "G": ("link", "gradient_descent")}  # of equilibrium
SECTIONS = {  # of the configuration, that an objective reads beside its options
    "residual_start": ("training_problems",),
    "score_start": ("training_problems",),
    "equilibrium": ("equilibrium", "training_problems"),
}
