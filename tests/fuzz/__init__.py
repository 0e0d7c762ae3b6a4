"""Parsers of foreign bytes, one list for two fuzzers: hypothesis in the tests, one guided by coverage as a judge."""
