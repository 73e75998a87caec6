"""The arrays of a store of records as a data set, as lazy as xarray's own; where one is damaged, reading it says so."""

from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


def opened(store: Any, path: Path) -> xr.Dataset:
    """All that is in `store`, which lies in `path`. What is read of it raises RuntimeError, with the array, if its
    bytes are not those that were written."""
    raw = xr.open_dataset(store, engine="zarr", consolidated=False, chunks=None, cache=False)
    arrays = {name: _cached(_Sound(of, path / str(name))) for name, of in raw.variables.items()}
    return raw.assign({n: xr.Variable(raw[n].dims, array, raw[n].attrs) for n, array in arrays.items()})


def _cached(array: BackendArray) -> Any:
    lazy: Any = indexing.LazilyIndexedArray(array)
    return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))


class _Sound(BackendArray):
    """An array that was opened, read as it is."""

    def __init__(self, of: xr.Variable, path: Path) -> None:
        self.of, self.path, self.shape, self.dtype = of, path, of.shape, of.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        try:
            return self.of[key].values
        except (OSError, MemoryError):
            raise
        except Exception as error:  # zarr's codecs raise several kinds for damaged bytes
            why = str(error).partition("\n")[0].rstrip(".")
            raise RuntimeError(
                f"{self.path} is damaged ({why}); run its command again, which makes the lost part again."
            ) from error
