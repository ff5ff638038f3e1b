"""Chooses the short matrix: the cases that still show everything that the whole plan shows.

- `needs`: what it must still show: pairs, known failures, planted defects;
- `kills`: which cases show a planted defect;
- `choice`: the cheapest set of cases that meets every need;
- `audit`: what a list of cases leaves unmet, without running anything.

`harness short` computes the choice, ``suites/short.csv`` keeps it.
"""
