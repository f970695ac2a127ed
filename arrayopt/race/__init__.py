"""Rules race over a two-dimensional problem: trajectories, as numbers, picture and animation.

``arrayopt race --rules adam,madam --problem beale --output race.png``; docs/race.md shows more.
"""
