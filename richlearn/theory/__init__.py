"""Closed forms of lazy and rich learning: float64 in, float64 out, no training code."""

from richlearn.theory.conserved import conserved_quantity, unit_scale

__all__ = ["conserved_quantity", "unit_scale"]
