"""Turns a run folder's tables into results, heat maps and a page. Independent of the code that
writes them."""
