"""What a grid will still need of the disk, planned without writing anything."""

from __future__ import annotations

from pathlib import Path

from medplus.datasets import sources
from medplus.datasets.download import official_files
from medplus.doctor.data import cache_need
from medplus.doctor.finding import Places
from medplus.doctor.folders import Need
from medplus.sweep.estimate import Estimator
from medplus.sweep.grid import read_grid
from medplus.sweep.inventory import Inventory
from medplus.sweep.job import Place
from medplus.sweep.plan import make_plan


def need_of_grid(file: Path, places: Places) -> Need:
    """Return what is left to do of a grid needs: downloads, caches, stores and runs.

    Raises
    ------
    MedplusError
        If the grid's file cannot be used.
    """
    grid = read_grid(file)
    place = Place(str(places.data), str(places.stores), str(places.runs))
    inventory = Inventory(grid, place, reads=False)
    plan = make_plan(grid, inventory, Estimator(places.data, list), failed=())
    left = [job for job in plan.jobs if job.state == "left"]
    stores = sum(job.nbytes for job in left if job.kind == "extract")
    runs = sum(job.nbytes for job in left) - stores
    need = Need(stores={"stores": stores}, runs={"runs": runs}, is_plan=True)
    caches = downloads = 0
    for name, size in dict.fromkeys(cell.images for cell in plan.cells):
        ref = sources.resolve(name)
        path = sources.path(ref, size, places.data)
        if path.exists():
            caches += cache_need(path)
        else:
            need.missing.append(path)
            if ref.source == "medmnist":
                [file_] = official_files([name], [size or 28], places.data)
                downloads += file_.bytes_left
                caches += file_.most_bytes
    need.data = {"downloads": downloads, "caches": caches}
    return need
