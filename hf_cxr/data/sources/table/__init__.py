"""Any labelled table of radiographs, read by a description."""
