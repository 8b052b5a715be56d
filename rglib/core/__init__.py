"""The mathematics: operators, problems, networks, the maps f and g, fixed points, algorithms."""
