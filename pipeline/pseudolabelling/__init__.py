"""Pseudo-labels: what teachers say about clips that no one annotated, by the rules of VALOR, LINK and LSLD."""
