"""The conformance kit: every number of the protocol as data, and where another code departs.

`rglib.conformance.cases` says what is computed on, `rglib.conformance.checks` what is compared,
`rglib.conformance.reference` computes it with rglib, `rglib.conformance.kit` is the file.
"""
