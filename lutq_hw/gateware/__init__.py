"""Amaranth components that are neither MAC units nor output stages."""
