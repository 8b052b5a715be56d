"""How fast rglib is, as ratios to what else there is: ``python -m benchmarks``.

One module measures one thing and returns rows of the table; what they share is in ``subjects``
(networks, photographs), ``timing`` and ``table``. ``plain`` is what rglib is compared with.
"""
