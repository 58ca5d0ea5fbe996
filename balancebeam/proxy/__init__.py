"""The request pipeline, the same for every downstream protocol."""
