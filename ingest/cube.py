"""The only user of zarr, xarray and rioxarray: the cube, one row per planned chip.

In: the plan, then each unit's chips. Out: `cube.zarr`, Zarr v3, sharded, which plain xarray opens. A unit's rows are
whole Zarr shards, so no two workers ever write one object and a unit that runs twice writes the same bytes twice.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store as ZarrStore
from zarr.codecs import BloscCodec
from zarr.errors import ContainsArrayError, ZarrUserWarning
from zarr.storage import FsspecStore, LocalStore

from ingest.assemble import Made
from ingest.plan import ROWS_PER_SHARD, IngestPlan, Task, Unit
from pipeline.bands import S1_NAMES
from pipeline.sample import MaskBit, arrays
from pipeline.store import Store

if TYPE_CHECKING:
    import xarray as xr

CUBE_NAME = "cube.zarr"
_COMPRESSOR = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
_COORDINATE_CHUNK = 65536
_TITLES = {"pair": "Co-registered Sentinel-1 and Sentinel-2 chips", "stack": "Time series of Sentinel-2 chips"}
_EPOCH = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"}


def create(store: Store, plan: IngestPlan) -> None:
    """Lay out the empty cube and write its coordinates; idempotent, and never touches a chip.

    Raises:
        ValueError: what is there is damaged, or the cube of another plan.
    """
    group = zarr.open_group(_zarr_store(store), mode="a", zarr_format=3)
    group.attrs.update(
        {
            "title": _TITLES[plan.request.kind],
            "plan_fingerprint": plan.fingerprint,
            "crs": "each sample has its own: EPSG in `epsg`, upper left corner in `left_m` and `top_m`, 10 m pixels",
        }
    )
    for name, (shape, dims) in _layout(plan).items():
        _chip_array(group, name, shape, dims=dims)
    _check_shapes(store, plan)
    _require(group, "accepted", np.zeros(plan.rows, bool), ("sample",), chunk=ROWS_PER_SHARD, write=False)
    if plan.request.kind == "stack":
        frames = np.zeros((plan.rows, plan.request.frames), np.int64)
        _require(group, "time", frames, ("sample", "frame"), chunk=ROWS_PER_SHARD, attributes=_EPOCH, write=False)
    for name, (values, attributes) in coordinates(plan).items():
        dims = (name,) if name in {"band", "polarisation"} else ("sample",)
        _require(group, name, values, dims, attributes=attributes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(_zarr_store(store))


def _check_shapes(store: Store, plan: IngestPlan) -> None:
    """By each array's own metadata: the consolidated ones may tell of another cube."""
    group = zarr.open_group(_zarr_store(store), mode="r", zarr_format=3, use_consolidated=False)
    for name, (shape, _) in _layout(plan).items():
        if (found := _array(group, name).shape) != shape:
            raise ValueError(f"{name} has shape {found} in place of {shape}")


def write_unit(store: Store, unit: Unit, made: Sequence[Made]) -> None:
    """Write the rows of one unit: accepted chips, and the fill value elsewhere."""
    group = zarr.open_group(_zarr_store(store), mode="r+", zarr_format=3, use_consolidated=False)
    rows = slice(unit.first_row, unit.first_row + unit.rows)
    accepted = np.zeros(unit.rows, bool)
    accepted[: len(made)] = [item.sample is not None for item in made]
    _array(group, "accepted")[rows] = accepted
    if _array(group, "time").ndim > 1:
        _array(group, "time")[rows] = _times(unit, made, _array(group, "time").shape[1])
    for name in ("s2", "s1", "mask", "label"):
        if name in group:
            _write_chips(_array(group, name), name, unit, made)


def _write_chips(array: zarr.Array[Any], name: str, unit: Unit, made: Sequence[Made]) -> None:
    """One shard after the other, each from the same memory."""
    block = np.empty((ROWS_PER_SHARD, *array.shape[1:]), array.dtype)
    for start in range(0, unit.rows, ROWS_PER_SHARD):
        block[...] = array.fill_value
        for i, item in enumerate(made[start : start + ROWS_PER_SHARD]):
            if item.sample is not None:
                block[i] = arrays(item.sample)[name]
        array[unit.first_row + start : unit.first_row + start + ROWS_PER_SHARD] = block


def _times(unit: Unit, made: Sequence[Made], frames: int) -> NDArray[np.int64]:
    """(rows, T) seconds since 1970 of each frame; 0 where there is none."""
    times = np.zeros((unit.rows, frames), np.int64)
    for i, item in enumerate(made):
        if item.sample is not None:
            times[i] = [round(when.timestamp()) for when in item.sample.meta.acquired]
    return times


def _layout(plan: IngestPlan) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Shape and axes of every array of chips."""
    request, size = plan.request, (plan.request.chip_px, plan.request.chip_px)
    stack = request.kind == "stack"
    lead, axes = ((plan.rows, request.frames), ("sample", "frame")) if stack else ((plan.rows,), ("sample",))
    found = {"s2": ((*lead, len(request.s2_bands), *size), (*axes, "band", "y", "x"))}
    if request.s1:
        found["s1"] = ((*lead, len(S1_NAMES), *size), (*axes, "polarisation", "y", "x"))
    found["mask"] = ((*lead, *size), (*axes, "y", "x"))
    if plan.has_label:
        found["label"] = ((plan.rows, *size), ("sample", "y", "x"))
    return found


def open_cube(store: Store) -> "xr.Dataset":
    """The cube as xarray sees it, lazily, in the stored units."""
    import xarray as xr

    cube: xr.Dataset = xr.open_zarr(_zarr_store(store), mask_and_scale=False)
    return cube.set_coords([name for name in cube.variables if cube[name].dims in {("sample",), ("sample", "frame")}])


def georeferenced(cube: "xr.Dataset", row: int, name: str = "s2") -> "xr.DataArray":
    """One sample's array with its CRS and its x and y of pixel centres, ready for rioxarray (`.rio.to_raster`)."""
    import rioxarray  # noqa: F401  registers `.rio`

    chip = cube[name].isel(sample=row)
    steps = (np.arange(chip.sizes["x"]) + 0.5) * 10
    placed = chip.assign_coords(x=float(chip["left_m"]) + steps, y=float(chip["top_m"]) - steps)
    with_crs: xr.DataArray = placed.rio.write_crs(int(chip["epsg"]))
    return with_crs


def _zarr_store(store: Store) -> ZarrStore:
    path = store.path(CUBE_NAME)
    return LocalStore(path) if store.is_local else FsspecStore.from_url(store.fs.unstrip_protocol(path))


_CHIP_TYPES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "s2": ("uint16", 0, {"long_name": "Sentinel-2 digital number", "reflectance_per_dn": 1e-4, "nodata": 0}),
    "s1": ("float32", float("nan"), {"long_name": "Sentinel-1 backscatter", "units": "dB"}),
    "mask": (
        "uint8",
        int(MaskBit.S2_NODATA | MaskBit.S1_NODATA),
        {
            "flag_masks": [int(bit) for bit in MaskBit],
            "flag_meanings": " ".join(str(bit.name).lower() for bit in MaskBit),
        },
    ),
    "label": ("uint8", 0, {"long_name": "class, 0 unknown"}),
}


def _chip_array(group: zarr.Group, name: str, shape: tuple[int, ...], *, dims: tuple[str, ...]) -> None:
    dtype, fill, attributes = _CHIP_TYPES[name]
    with suppress(ContainsArrayError):
        group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(1, *shape[1:]),
            shards=(ROWS_PER_SHARD, *shape[1:]),
            compressors=_COMPRESSOR,
            fill_value=fill,
            dimension_names=dims,
            attributes=attributes,
        )


def _require(
    group: zarr.Group,
    name: str,
    values: NDArray[Any],
    dims: tuple[str, ...],
    *,
    chunk: int = _COORDINATE_CHUNK,
    attributes: dict[str, Any] | None = None,
    write: bool = True,
) -> None:
    # Not "if it is missing": another driver of the same plan may create it in between.
    with suppress(ContainsArrayError):
        group.create_array(
            name,
            shape=values.shape,
            dtype=str if values.dtype == object else values.dtype,
            chunks=(min(chunk, max(1, values.shape[0])), *values.shape[1:]),
            dimension_names=dims,
            attributes=attributes or {},
        )
    if write:
        _array(group, name)[:] = values


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(name)
    return array


def coordinates(plan: IngestPlan) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    """Values and attributes of every coordinate; padding rows are empty."""
    tasks = plan.tasks
    rows = np.array([unit.first_row + i for unit in plan.units for i in range(len(unit.tasks))], dtype=np.int64)

    def column(get: Any, fill: Any) -> NDArray[Any]:
        values = np.full(plan.rows, fill, dtype=object if isinstance(fill, str) else type(fill))
        values[rows] = [get(task) for task in tasks]
        return values

    def seconds(get: Any) -> NDArray[Any]:
        return column(lambda task: round(get(task).timestamp()), 0).astype(np.int64)

    def center(axis: int) -> NDArray[Any]:
        return column(lambda task: task.cell.center_lonlat[axis], float("nan"))

    def text(get: Any) -> NDArray[Any]:
        return column(get, "")

    def cell(task: Task) -> Any:
        return task.cell

    def of_pairs() -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
        return {
            "time": (seconds(lambda task: task.s2.acquired), _EPOCH),
            "s1_time": (seconds(lambda task: task.s1.acquired), _EPOCH),
        }

    return {
        "band": (np.array(plan.request.s2_bands, dtype=object), {}),
        **({"polarisation": (np.array(S1_NAMES, dtype=object), {})} if plan.request.s1 else {}),
        "key": (text(lambda task: task.key), {}),
        "cell_id": (text(lambda task: cell(task).cell_id), {}),
        "split": (text(lambda task: task.split), {}),
        "epsg": (column(lambda task: cell(task).epsg, 0).astype(np.int32), {}),
        "left_m": (column(lambda task: cell(task).left_m, float("nan")), {"units": "m"}),
        "top_m": (column(lambda task: cell(task).top_m, float("nan")), {"units": "m"}),
        "lon": (center(0), {"units": "degrees_east"}),
        "lat": (center(1), {"units": "degrees_north"}),
        **(of_pairs() if plan.request.kind == "pair" else {}),
    }


def open_rows(store: Store) -> zarr.Group:
    """The cube, to read single rows from; consolidated metadata is not trusted."""
    return zarr.open_group(_zarr_store(store), mode="r", zarr_format=3, use_consolidated=False)


def read_row(group: zarr.Group, row: int) -> dict[str, NDArray[Any]]:
    """The chips in one row, by array."""
    return {name: np.asarray(_array(group, name)[row]) for name in _CHIP_TYPES if name in group}


def read_rows(group: zarr.Group, start: int, stop: int) -> dict[str, NDArray[Any]]:
    """The chips in rows `start` to `stop` (excluded), by array."""
    return {name: np.asarray(_array(group, name)[start:stop]) for name in _CHIP_TYPES if name in group}


def chip_shapes(group: zarr.Group) -> dict[str, tuple[int, ...]]:
    """Shape of one sample's chip in every array."""
    return {name: _array(group, name).shape[1:] for name in _CHIP_TYPES if name in group}


def is_empty(name: str, chip: NDArray[Any]) -> bool:
    """Whether a chip of array `name` was never written, or is of a rejected one: the fill value everywhere."""
    fill = _CHIP_TYPES[name][1]
    return bool((np.isnan(chip) if np.isnan(fill) else chip == fill).all())


def read_part(group: zarr.Group, name: str, start: int, stop: int) -> NDArray[Any]:
    """Rows `start` to `stop` (excluded) of a coordinate."""
    return np.asarray(_array(group, name)[start:stop])


def read_column(group: zarr.Group, name: str) -> NDArray[Any]:
    """A whole coordinate."""
    return np.asarray(_array(group, name)[:])


def shard_numbers(store: Store, name: str) -> set[int]:
    """Which Zarr shards of chip array `name` are there."""
    return {int(number) for number in store.names(f"{CUBE_NAME}/{name}/c") if number.isdecimal()}
