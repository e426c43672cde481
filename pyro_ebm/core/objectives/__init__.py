"""One file a paper: its training loss as arithmetic on energies already computed."""
