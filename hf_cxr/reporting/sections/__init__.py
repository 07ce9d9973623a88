"""The parts of a page, one module for each analysis; `table.SECTIONS` says which are shown, and in which order.

Contract of the family: a function takes an analysis's plain values (analysis.json) and returns a `Section`: blocks,
and figures that are drawn when the page is written. Nothing is measured here.
"""
