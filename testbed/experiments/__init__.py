"""The experiments that come with testbed: a file for each family of claims, each with its ``EXPERIMENTS``."""
