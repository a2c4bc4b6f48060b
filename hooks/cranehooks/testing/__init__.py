"""Fakes and builders for the tests of everything that uses the engine."""
