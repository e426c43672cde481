"""Okabe and Ito's colors, distinct for every kind of color vision."""

BLUE, VERMILLION = "#0072B2", "#D55E00"
CHAIN_COLORS = (VERMILLION, BLUE, "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
