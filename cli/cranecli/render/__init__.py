"""What front ends show people: pure functions from the controller's answers to lines of text.

`records` parses an answer once; `documents` turns records into the stable JSON of `-o json`; `tables`, `details`, `timeline` and
`explanation` turn them into lines; `words` writes amounts and times, `table` and `style` lay out and colour.
"""
