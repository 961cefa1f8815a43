"""Networks of the shipped recipes: one submodule per stage."""
