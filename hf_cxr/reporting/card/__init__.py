"""What is published with a model or a prepared dataset: the model card, the datasheet, and what they cite and check.

Contract of the family: each is filled from what a run or a folder recorded, and nothing is typed by hand.
"""
