"""The object classes of the sandbox world: class name -> `draw(pen, r)`."""

from __future__ import annotations

from . import animals, buildings, clothing, food, household, plants, tools, vehicles


DRAWINGS = {
    **food.DRAWINGS,
    **plants.DRAWINGS,
    **animals.DRAWINGS,
    **buildings.DRAWINGS,
    **vehicles.DRAWINGS,
    **household.DRAWINGS,
    **tools.DRAWINGS,
    **clothing.DRAWINGS,
}
