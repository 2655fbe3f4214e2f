"""An Earth that needs no network: real COGs and a real STAC catalog, and the true value of every pixel.

    landscape.py    what the ground is: an analytic function of (longitude, latitude, channel, time)
    scenes.py       which scenes exist: dates, orbits, grids, footprints
    render.py       scene -> pixels: landscape at the pixel centres, clouds, speckle, digital numbers
    stac.py         scene -> STAC documents
    write.py        pixels -> COGs, STAC items, catalog.json, items.parquet

A product, not a mock: `make_earth` writes what an ingest reads from Planetary Computer, on a laptop's scale.
`reflectance` and `gamma0` are the truth to hold a result against; without noise the pixels are that, rounded.
"""

from ingest.synthetic.landscape import CLASSES, cloud_cover, cloud_shadow, gamma0, land_cover, reflectance
from ingest.synthetic.scenes import DEFAULT_DATES, EarthOptions, SceneSpec, earth_scenes
from ingest.synthetic.write import EarthSummary, make_earth

__all__ = [
    "CLASSES",
    "DEFAULT_DATES",
    "EarthOptions",
    "EarthSummary",
    "SceneSpec",
    "cloud_cover",
    "cloud_shadow",
    "earth_scenes",
    "gamma0",
    "land_cover",
    "make_earth",
    "reflectance",
]
